#!/usr/bin/env bash
# JPEG allows bytes 0xFF in front of each marker. Of eight libraries, image-size, jay-peg and purepix refuse a picture that has
# them in front of its segments; jpeg-js and jay-peg refuse them in front of restart markers.
#
# Guess before the run: fill bytes have been in the standard since 1992 (ITU-T T.81, B.1.1.2), so a library that reads JPEG skips
# them.
# Seen for one picture with one fill byte in front of each segment: Pillow 13.0.0 (libjpeg-turbo), stb_image (2022-09-08) and
# jpeg-js 0.4.4 decode it to the same pixels, imagesize 2.0.1 (Python) and probe-image-size 7.5.0 give its size. image-size 2.1.0
# says "Corrupt JPG", jay-peg 1.1.1 (which react-pdf uses) "Unknown version 65535", purepix 0.3.1 "no scan found in JPEG". If only
# the restart markers have the fill byte, Pillow and stb_image decode it. jpeg-js ("unknown JPEG marker ffd0") and jay-peg do not.
# For a receiver: an encoder may align its segments so. An error of these four does not say that a picture is damaged. Try a
# second decoder before a picture is thrown away.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian libstb-dev=0.0~git20220908.8b5f1f3+ds-1
python pillow==13.0.0 imagesize==2.0.1 purepix==0.3.1
node_packages jpeg-js@0.4.4 image-size@2.1.0 probe-image-size@7.5.0 jay-peg@1.1.1
cat >make.py <<'CODE'
"""plain.jpg; filled.jpg with a fill byte in front of each segment; restarts.jpg with one in front of each restart marker."""
from PIL import Image

Image.radial_gradient("L").resize((80, 56)).convert("RGB").save("plain.jpg", restart_marker_blocks=2)
plain = open("plain.jpg", "rb").read()
filled, at = bytearray(plain[:2]), 2
while True:
    end = at + 2 + int.from_bytes(plain[at + 2:at + 4], "big")
    filled += b"\xff" + plain[at:end]
    at, start_of_scan = end, plain[at + 1] == 0xDA
    if start_of_scan:
        break
rest, restarts = plain[at:], bytearray()
for byte, following in zip(rest, rest[1:] + b"\0"):
    if byte == 0xFF and 0xD0 <= following <= 0xD7:
        restarts.append(0xFF)
    restarts.append(byte)
open("filled.jpg", "wb").write(filled + rest[:-2] + b"\xff" + rest[-2:])
open("restarts.jpg", "wb").write(plain[:at] + restarts)
CODE
cat >seen.py <<'CODE'
import imagesize
import purepix
from PIL import Image


def shown(name, read):
    for picture in ("plain", "filled", "restarts"):
        try:
            said = read(picture + ".jpg")
        except Exception as error:
            said = f"refused: {error}"
        print(f"{name}, {picture}: {said}")


pixels = Image.open("plain.jpg").tobytes()
shown("Pillow", lambda path: "same pixels" if Image.open(path).tobytes() == pixels else "other pixels")
shown("imagesize", lambda path: "{}x{}".format(*imagesize.get(path)))
shown("purepix", lambda path: "{0.width}x{0.height}".format(purepix.open(path)))
CODE
cat >seen.js <<'CODE'
const fs = require("fs");

function shown(name, read) {
    for (const picture of ["plain", "filled", "restarts"]) {
        let said;
        try {
            said = read(fs.readFileSync(picture + ".jpg"));
        } catch (error) {
            said = "refused: " + error.message;
        }
        console.log(`${name}, ${picture}: ${said}`);
    }
}

const { decode } = require("jpeg-js"), { imageSize } = require("image-size"), probe = require("probe-image-size");
const pixels = decode(fs.readFileSync("plain.jpg")).data;
const size = (found) => `${found.width}x${found.height}`;
shown("jpeg-js", (bytes) => decode(bytes).data.equals(pixels) ? "same pixels" : "other pixels");
shown("image-size", (bytes) => size(imageSize(bytes)));
shown("probe-image-size", (bytes) => size(probe.sync(bytes)));
shown("jay-peg", (bytes) => size(require("jay-peg").default.decode(bytes).find((marker) => marker.width)));
CODE
cat >seen.c <<'CODE'
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

int main(void) {
    const char *pictures[] = {"plain", "filled", "restarts"};
    unsigned char *plain = NULL;
    for (int i = 0; i < 3; i++) {
        char path[32];
        int width, height, channels;
        snprintf(path, sizeof path, "%s.jpg", pictures[i]);
        unsigned char *pixels = stbi_load(path, &width, &height, &channels, 3);
        if (!i) plain = pixels;
        printf("stb_image, %s: %s\n", pictures[i],
               !pixels ? stbi_failure_reason() : memcmp(pixels, plain, 80 * 56 * 3) ? "other pixels" : "same pixels");
    }
    return 0;
}
CODE
gcc -O1 -w -Iroot/usr/include seen.c -o with-stb -lm
venv/bin/python make.py
{ venv/bin/python seen.py; ./with-stb; node seen.js; } >seen
cat >expected <<'SEEN'
Pillow, plain: same pixels
Pillow, filled: same pixels
Pillow, restarts: same pixels
imagesize, plain: 80x56
imagesize, filled: 80x56
imagesize, restarts: 80x56
purepix, plain: 80x56
purepix, filled: refused: no scan found in JPEG
purepix, restarts: 80x56
stb_image, plain: same pixels
stb_image, filled: same pixels
stb_image, restarts: same pixels
jpeg-js, plain: same pixels
jpeg-js, filled: same pixels
jpeg-js, restarts: refused: unknown JPEG marker ffd0
image-size, plain: 80x56
image-size, filled: refused: Corrupt JPG, exceeded buffer limits
image-size, restarts: 80x56
probe-image-size, plain: 80x56
probe-image-size, filled: 80x56
probe-image-size, restarts: 80x56
jay-peg, plain: 80x56
jay-peg, filled: refused: Unknown version 65535
jay-peg, restarts: refused: Unknown version 65535
SEEN
same expected seen
