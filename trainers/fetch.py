"""`python -m trainers.fetch text SDIST` and `python -m trainers.fetch speech` make the stand-ins' data.
`install.sh data` calls them, and brings what they are made of."""

import sys
from pathlib import Path

from trainers.tasks import DataError, data_folder, standin_speech, standin_text


def main(arguments: list[str]) -> None:
    match arguments:
        case ["text", sdist]:
            standin_text.extract(Path(sdist), data_folder("standin_text"))
        case ["speech"]:
            standin_speech.generate(data_folder("standin_speech"))
        case _:
            raise SystemExit("Usage: python -m trainers.fetch text SDIST | speech")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("Stopped. The same line goes on with it.") from None
