"""The commands: one small file each, run as `python -m whisfusion_asr.bin.NAME` or `whisfusion NAME`."""
