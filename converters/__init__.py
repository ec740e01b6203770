"""Makes files of a model: ExecuTorch (.pte) and LiteRT (.tflite), and checks what came out.

This folder never decides what to optimise and never measures speed.
"""
