"""Train a part or the whole model with ESPnet's trainer: its options and YAML, and the choices of this package."""

import sys

from whisfusion_asr.errors import exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """argv: options of `DiffusionASRTask` (`--print_config` lists them); the command line's by default."""
    from whisfusion_asr.tasks.asr import DiffusionASRTask  # late: importing ESPnet costs seconds

    DiffusionASRTask.main(cmd=sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
