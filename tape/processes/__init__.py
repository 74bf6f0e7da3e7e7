"""`WorkerProcesses`: calls of a function side by side, each in a process of its own.

    pool.py         WorkerProcesses
    process.py      one of the processes, as the program sees it; what it computed, as an operator
    worker.py       what runs in one of them
    messages.py     what goes to and fro between the two
    snapshot.py     a function and its state as bytes; leaves go by number
    shared.py       arrays in memory that all processes see
    forks.py        other processes that the program forks, which must not see them
"""

from tape.processes.pool import WorkerProcesses

__all__ = ["WorkerProcesses"]
