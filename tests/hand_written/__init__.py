"""The backward passes of whole decoders, derived by hand and written out in plain NumPy.

    layers.py         the layers, each with its backward below it, a line for each line of the forward
    one_block.py      decoders of one block, made of these: post-norm with ReLU, pre-norm with SwiGLU
    gelu_decoder.py   GPT-2's decoder of any number of blocks, as one would write it for speed

This is how a Transformer is differentiated without a tape. The tests hold the tape against it
(test_hand_written_backward.py), and ``python -m tests.bench.bench_hand_written`` prints what the tape
costs in time over gelu_decoder.py.

Capital letters are arrays of the forward; dX is the derivative of the loss by X, of the shape of X.
"""
