"""Runtimes: what plain passes are run by. Torch always, and programs made for inference where one is proven and pays.

`asked` is what the user wants, `converted` a network in another runtime with its proof, `choice` when it pays, `shelf`
where conversions are kept on disk; `openvino` and `onnx` are the runtimes themselves.
"""
