"""Schemes of other programs that quantize: how each lays out codes and scales, and how it makes weights of them.

One module for each scheme gives a `Tensor` with a decoder, which reads rows whatever the order of the arrays on disk.
Weights are what the scheme's own library computes before it rounds them to the dtype of the model, in f32. Where the
codes of a row mean the same in a type of gemmaq they are kept, else the rows are decoded.
"""
