// Draws faces onto canvases: boxes on the photo, faces cut out upright, and maps over both.
// Points are in pixels of the upright photo, as the server gives them.

const MARK = "#ffb627";
const INK = "#10161d";
const VEIL = 0.66; // how dark it is where a map is 0; what lies there can still be made out
const CONTOUR_SIDE = 336; // pixels of a map that its line is found in

/** The photo on a canvas, with the boxes of its faces, and the map of one of them. */
export function drawPhoto(canvas, photo, faces, chosen, map) {
  const longer = Math.max(photo.width, photo.height);
  // Lines and labels are drawn in the canvas's own pixels, so tiny photos are enlarged.
  const scale = Math.min(Math.max(longer, 900), 1800) / longer;
  canvas.width = Math.round(photo.width * scale);
  canvas.height = Math.round(photo.height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(photo.bitmap, 0, 0, canvas.width, canvas.height);
  if (map) {
    const { x, y, side, roll } = map.frame;
    context.save();
    context.translate(x * scale, y * scale);
    context.rotate((roll * Math.PI) / 180);
    context.drawImage(map.veil, (-side * scale) / 2, (-side * scale) / 2, side * scale, side * scale);
    context.restore();
  }
  const unit = canvas.width / (canvas.clientWidth || canvas.width); // pixels for one of the page
  const boxes = faces.map((face) => face.box.map((edge) => edge * scale));
  boxes.forEach((box, index) => strokeBox(context, box, unit * (index === chosen ? 1.6 : 1)));
  drawLabels(context, boxes, faces, unit);
}

function strokeBox(context, [left, top, right, bottom], unit) {
  context.lineJoin = "round";
  for (const [colour, width] of [[INK, 4.5], [MARK, 2.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * unit;
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

/** The number of each face, and its label where that hides no other's number. */
function drawLabels(context, boxes, faces, unit) {
  context.font = `600 ${14 * unit}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  const numbers = boxes.map((box, index) => placeLabel(context, box, String(index + 1), unit));
  const placed = [...numbers];
  boxes.forEach((box, index) => {
    const whole = placeLabel(context, box, `${index + 1}  ${faces[index].expression}`, unit);
    const free = whole.wide < 1.6 * (box[2] - box[0]) &&
      placed.every((other, place) => place === index || !overlap(whole, other));
    if (free) placed[index] = whole;
  });
  for (const { text, x, y, wide, high } of placed) {
    context.fillStyle = INK;
    context.fillRect(x - unit, y - unit, wide + 2 * unit, high + 2 * unit);
    context.fillStyle = MARK;
    context.fillRect(x, y, wide, high);
    context.fillStyle = INK;
    context.fillText(text, x + 6 * unit, y + high / 2 + unit);
  }
}

function placeLabel(context, [left, top, , bottom], text, unit) {
  const { width, height } = context.canvas;
  const wide = context.measureText(text).width + 12 * unit;
  const high = 22 * unit;
  const x = Math.max(Math.min(left, width - wide), 0);
  const y = top - high >= 0 ? top - high : Math.max(Math.min(bottom, height - high), 0);
  return { text, x, y, wide, high };
}

function overlap(one, other) {
  return one.x < other.x + other.wide && other.x < one.x + one.wide &&
    one.y < other.y + other.high && other.y < one.y + one.high;
}

/** The surroundings of a face's box, square, as a small picture beside its label. */
export function drawThumb(canvas, photo, face) {
  const [left, top, right, bottom] = face.box;
  const side = 1.25 * Math.max(right - left, bottom - top);
  drawCut(canvas, photo, { x: (left + right) / 2, y: (top + bottom) / 2, side, roll: 0 });
}

/** A face upright, as the network gets it, with a map over it. */
export function drawMap(canvas, photo, map) {
  drawCut(canvas, photo, map.frame);
  canvas.getContext("2d").drawImage(map.veil, 0, 0, canvas.width, canvas.height);
}

function drawCut(canvas, photo, { x, y, side, roll }) {
  const context = canvas.getContext("2d");
  const scale = canvas.width / side;
  context.save();
  context.fillStyle = "#7f7f7f"; // beyond the photo's edge
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.translate(canvas.width / 2, canvas.height / 2);
  context.rotate((-roll * Math.PI) / 180);
  context.scale(scale, scale);
  context.drawImage(photo.bitmap, -x, -y, photo.width, photo.height);
  context.restore();
}

/** What lies over a face: dark where a map is low, and a line around what is above half of it. */
export async function makeVeil(png) {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = CONTOUR_SIDE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, CONTOUR_SIDE, CONTOUR_SIDE);
  const image = context.getImageData(0, 0, CONTOUR_SIDE, CONTOUR_SIDE);
  const heat = image.data.filter((_, index) => index % 4 === 0);
  const above = (row, column) => heat[row * CONTOUR_SIDE + column] >= 128;
  for (let row = 0; row < CONTOUR_SIDE; row++) {
    for (let column = 0; column < CONTOUR_SIDE; column++) {
      const at = row * CONTOUR_SIDE + column;
      const veil = VEIL * (1 - heat[at] / 255);
      image.data.set([9, 14, 20, Math.round(255 * veil)], 4 * at);
      if (isEdge(above, row, column, 2)) image.data.set([16, 22, 29, 255], 4 * at);
      if (isEdge(above, row, column, 1)) image.data.set([255, 182, 39, 255], 4 * at);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function isEdge(above, row, column, reach) {
  const last = CONTOUR_SIDE - 1;
  const here = above(row, column);
  return [[reach, 0], [-reach, 0], [0, reach], [0, -reach]].some(
    ([down, right]) =>
      above(Math.min(Math.max(row + down, 0), last), Math.min(Math.max(column + right, 0), last)) !== here,
  );
}
