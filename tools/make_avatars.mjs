// Draw the demo's avatars, two sets in two styles, 64 x 64 pixels:
//
//     npm install @dicebear/core@9.4.3 @dicebear/collection@9.4.3 @resvg/resvg-js@2.6.2
//     node tools/make_avatars.mjs src/ugatit/avatars && python tools/fewer_colours.py src/ugatit/avatars
//
// What a face is like is drawn by lot from its seed, another for each style: nothing tells which two belong together.

import fs from "node:fs";
import { createAvatar } from "@dicebear/core";
import * as styles from "@dicebear/collection";
import { Resvg } from "@resvg/resvg-js";

const SIDE = 64;
const PARTS = { train: 600, test: 60 };
const COMMON = {
  radius: 50,
  backgroundColor: ["f2d3b1", "e3a76f", "c68642", "8d5524", "f2994a", "ffb84d", "ffd94d"],
};
const DOMAINS = {
  A: ["adventurerNeutral", { scale: 95, glassesProbability: 0 }],
  B: ["funEmoji", { // without glasses, masks and the like, which A's have not
    eyes: ["sad", "tearDrop", "pissed", "cute", "wink", "wink2", "plain", "closed", "closed2", "crying", "sleepClose"],
    mouth: ["plain", "lilSmile", "sad", "shy", "cute", "wideSmile", "shout", "smileTeeth", "smileLol", "pissed",
      "tongueOut"],
  }],
};

const out = process.argv[2];
for (const [domain, [style, own]] of Object.entries(DOMAINS)) {
  const seen = new Set();
  let number = 0;
  for (const [part, count] of Object.entries(PARTS)) {
    const folder = `${out}/${part}${domain}`;
    fs.rmSync(folder, { recursive: true, force: true });
    fs.mkdirSync(folder, { recursive: true });
    for (let made = 0; made < count; number++) {
      const svg = createAvatar(styles[style], { seed: `${style}-${number}`, ...COMMON, ...own }).toString();
      if (seen.has(svg)) continue; // what is held out is never trained on
      seen.add(svg);
      const picture = new Resvg(svg, { fitTo: { mode: "width", value: SIDE }, background: "#ffffff" }).render();
      fs.writeFileSync(`${folder}/${String(number).padStart(4, "0")}.png`, picture.asPng());
      made++;
    }
  }
}
