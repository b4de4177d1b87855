"""Make the model that the demo shows at once, src/ugatit/emoji/model, from a run: python tools/ship_model.py RUN

The run was

    ugatit train src/ugatit/emoji --preset quick --steps 20000 --ema 0.999 -o RUN

in 75 minutes: the first 9,470 steps on one core, the rest on two. It was stopped and resumed twice, and from step 4,679
to 9,470 had --steps 14500, that is, a somewhat lower learning rate from step 7,250 on.
"""

import sys
from pathlib import Path

from ugatit.demo import SHIPPED
from ugatit.systems.folder import save_model
from ugatit.translate import Translator


def main(run: Path) -> None:
    system = Translator.load(run, "cpu").system
    for name in system.translators:
        system.get_submodule(name).half()  # half the size; reading makes it float32 again
    save_model(system, SHIPPED, step=0, with_training=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
