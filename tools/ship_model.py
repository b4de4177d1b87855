"""Put a trained model into the package as the demo's: python tools/ship_model.py RUN

Weights are stored in half precision; loading widens them again. The shipped one was trained with

    ugatit train src/ugatit/emoji --preset quick --width 20 --steps 16000 --ema 0.999 -o RUN
"""

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file

from ugatit.demo import SHIPPED
from ugatit.files import save_tensors


def main(run: Path) -> None:
    SHIPPED.mkdir(exist_ok=True)
    shutil.copyfile(run / "model" / "config.json", SHIPPED / "config.json")
    weights = load_file(run / "model" / "translator.safetensors")
    save_tensors({name: tensor.half() for name, tensor in weights.items()}, SHIPPED / "translator.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
