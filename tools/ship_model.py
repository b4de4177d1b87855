"""Make a model that comes with the package, src/ugatit/models/NAME, from a run: python tools/ship_model.py RUN NAME

It translates A to B, in float16, and is loaded by its name. Its card, README.md, is written by hand. How the runs were
trained is in docs/results.md.
"""

import sys
from dataclasses import replace
from pathlib import Path

from ugatit.systems import UGATIT
from ugatit.systems.base import Faces
from ugatit.translation.folder import save_model, translator_state
from ugatit.translation.hub import SHIPPED
from ugatit.translation.translator import Translator

FACES = {"face2anime": Faces("photo", 0.0, align=True)}  # as its training pictures lie, which came without a manifest


def main(run: Path, name: str) -> None:
    system = Translator.load(run, "cpu").system
    one_way = UGATIT(replace(system.config, only="a2b", faces_a=FACES.get(name)))
    one_way.load_state_dict({k: v for k, v in translator_state(system).items() if k.startswith("gen_a2b")})
    one_way.half()  # half the size; reading makes it float32 again
    save_model(one_way, SHIPPED / name, step=0, with_training=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
