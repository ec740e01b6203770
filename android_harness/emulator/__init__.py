"""The emulated arm64 board: real arm64 machine code under QEMU, counted, never timed."""
