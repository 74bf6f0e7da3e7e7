"""`WorkerProcesses`: calls of a function side by side, each in a process of its own.

    pool.py         the processes, as the program sees them
    worker.py       what runs in one of them
    messages.py     what goes to and fro between the two
    snapshot.py     a function and its state as bytes; leaves go by number
    shared.py       arrays in memory that all processes see
"""

from tape.processes.pool import WorkerProcesses

__all__ = ["WorkerProcesses"]
