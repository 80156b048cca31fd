// The page: takes a photo, asks the server, and shows what it says as a picture and as text.
// The photo stays in this page's memory, for maps of its faces, until another one takes its place.

import { drawMap, drawPhoto, drawThumb, makeVeil } from "./drawing.js";

const at = (id) => document.getElementById(id);
const SHRUNK_SIDE = 2560; // pixels of the longer side of photos that are too large to send as they are
const TRIES = 5; // after the first, of a server that has no place for the photo just then
const LISTED = 6; // faces in the summary; all have a card
const SCALES = { compressed: "all", deep: "coarse", shallow: "fine" };

let limits = { bytes: Infinity, pixels: Infinity };
let shown = null; // { photo, faces, cards, chosen, map }
let asking = new AbortController();
let stream = null; // of the camera

// What is said

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}

function say(text, busy = false) {
  at("error").textContent = "";
  at("status").textContent = text;
  at("status").classList.toggle("busy", busy);
}

function complain(text) {
  say("");
  at("error").textContent = sentence(text);
}

function percent(share) {
  const value = Math.round(100 * share);
  if (value === 0 && share > 0) return "<1\u00a0%";
  if (value === 100 && share < 1) return ">99\u00a0%";
  return `${value}\u00a0%`;
}

// Asking the server

async function ask(address, blob, signal) {
  let answer = await post(address, blob, signal);
  for (let again = 0; answer.status === 503 && again < TRIES; again++) {
    say("Many photos are waiting; yours is sent again in a moment …", true);
    await new Promise((resolve) => setTimeout(resolve, 1000 * (answer.headers.get("Retry-After") || 2)));
    answer = await post(address, blob, signal);
  }
  const said = await answer.json().catch(() => ({ error: "the server's answer cannot be read" }));
  if (!answer.ok) throw new Error(said.error || `the server answers ${answer.status}`);
  return said;
}

async function post(address, blob, signal) {
  try {
    return await fetch(address, { method: "POST", body: blob, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is it still running?");
  }
}

async function readLimits() {
  const answer = await fetch("/api/model").catch(() => null);
  if (!answer || !answer.ok) return;
  const model = await answer.json();
  limits = model.limits;
  const { labels } = model;
  const words = `${labels.slice(0, -1).join(", ")} or ${labels.at(-1)}`;
  at("model").textContent =
    `Every face in a photo is found, and gets one of ${labels.length} labels with its probability: ${words}.`;
}

/** The photo as it is, or smaller where the server would not take it. */
async function fit(blob, bitmap) {
  const pixels = bitmap.width * bitmap.height;
  if (blob.size <= limits.bytes && pixels <= limits.pixels) return blob;
  const scale = Math.min(1, SHRUNK_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return toJpeg(canvas);
}

function toJpeg(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

async function look(blob) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  at("result").hidden = true;
  shown = null;
  say("Looking for faces …", true);
  try {
    const bitmap = await createImageBitmap(blob).catch(() => null);
    if (!bitmap && blob.size > limits.bytes) throw new Error("this is too large, and no photo that a browser can show");
    const sent = bitmap ? await fit(blob, bitmap) : blob; // if it cannot be shown, the server says why
    const record = await ask("/api/faces", sent, signal);
    if (signal.aborted) return;
    if (!bitmap) throw new Error("the server can read this photo, but this browser cannot show it");
    show({ blob: sent, bitmap, width: record.width, height: record.height }, record);
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  }
}

// Showing what it says

function show(photo, record) {
  const { faces } = record;
  shown = { photo, faces, chosen: -1, map: null, cards: [] };
  at("faces").replaceChildren(...faces.map(makeCard));
  shown.cards = [...at("faces").children];
  at("result").hidden = false;
  at("give").classList.add("small"); // the result has the room now
  at("photo").classList.toggle("clickable", faces.length > 0);
  const listed = faces.map((face, index) => `${index + 1} ${face.expression} ${percent(face.probabilities[face.expression])}`);
  const more = listed.length > LISTED ? ` and ${listed.length - LISTED} more` : "";
  const count = faces.length === 1 ? "One face" : `${faces.length} faces`;
  const summary = `${count}: ${listed.slice(0, LISTED).join(", ")}${more}.`;
  at("photo").setAttribute("aria-label", faces.length ? `Your photo. ${summary}` : "Your photo, without a face.");
  at("caption").textContent = [
    record.note ? sentence(record.note) : "",
    faces.length ? "Select a face to see what speaks for its label." : "",
  ].join(" ").trim();
  if (faces.length) say(summary);
  else say("No face was found. Faces that are tiny, covered or turned far aside are missed.");
  redraw();
}

function redraw() {
  if (!shown) return;
  drawPhoto(at("photo"), shown.photo, shown.faces, shown.chosen, shown.map);
}

function makeCard(face, index) {
  const card = at("face").content.firstElementChild.cloneNode(true);
  const best = face.probabilities[face.expression];
  const number = document.createElement("span");
  number.className = "number";
  number.textContent = `Face ${index + 1} `;
  card.querySelector("h3").append(number, `${face.expression} ${percent(best)}`);
  const sorted = Object.entries(face.probabilities).sort((one, other) => other[1] - one[1]);
  card.querySelector(".bars").append(...sorted.map(([name, share]) => makeBar(name, share)));
  card.querySelector(".bars").setAttribute("aria-label", `Probabilities of face ${index + 1}`);
  const why = card.querySelector(".why");
  const map = card.querySelector(".map");
  map.id = `map-${index + 1}`;
  why.setAttribute("aria-controls", map.id);
  why.setAttribute("aria-label", `What speaks for it? Face ${index + 1}, ${face.expression}`);
  why.addEventListener("click", () => choose(index));
  drawThumb(card.querySelector(".thumb"), shown.photo, face);
  return card;
}

function makeBar(name, share) {
  const bar = document.createElement("li");
  const [label, track, fill, value] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
  label.textContent = name;
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  fill.className = "fill";
  fill.style.width = `${100 * share}%`;
  track.append(fill);
  value.className = "value";
  value.textContent = percent(share);
  bar.append(label, track, value);
  return bar;
}

// What speaks for a label

async function choose(index) {
  const current = shown;
  const again = current.chosen === index;
  current.chosen = again ? -1 : index;
  current.map = null;
  current.cards.forEach((card, place) => {
    const open = place === current.chosen;
    card.classList.toggle("shown", open);
    card.querySelector(".why").setAttribute("aria-expanded", String(open));
    card.querySelector(".map").hidden = !open || !card.explained;
  });
  redraw();
  const card = current.cards[index];
  if (again) {
    if (!card.explained) say("");
    return;
  }
  const isOpen = () => shown === current && current.chosen === index;
  try {
    if (!card.explained) say(`Looking at what speaks for face ${index + 1} …`, true);
    card.explaining ??= explain(card, index); // once, however often it is opened meanwhile
    await card.explaining;
    if (!isOpen()) return;
    card.querySelector(".map").hidden = false;
    showScale(card, index);
    card.querySelector(".map").scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (error.name === "AbortError" || !isOpen()) return;
    choose(index); // closes it
    complain(error.message);
  }
}

async function explain(card, index) {
  try {
    const explained = await ask(`/api/explain?face=${index + 1}`, shown.photo.blob, asking.signal);
    for (const map of Object.values(explained.maps)) map.veil = await makeVeil(map.png);
    card.explained = explained;
    addScales(card, index);
  } catch (error) {
    card.explaining = null; // asked for again when it is opened again
    throw error;
  }
}

function addScales(card, index) {
  const scales = card.querySelector(".scales");
  for (const [scale, name] of Object.entries(SCALES)) {
    if (!card.explained.maps[scale]) continue;
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `scale-${index}`, value: scale, checked: scale === "compressed" });
    input.addEventListener("change", () => showScale(card, index));
    label.append(input, name);
    scales.append(label);
  }
}

function showScale(card, index) {
  const scale = card.querySelector(".scales input:checked").value;
  const { frame, maps, expression } = card.explained;
  const { veil, near, cells } = maps[scale];
  shown.map = { frame, veil };
  const canvas = card.querySelector(".map canvas");
  drawMap(canvas, shown.photo, shown.map);
  redraw();
  const found = near
    ? `what speaks for ${expression} is strongest near the ${near}`
    : `nothing that speaks for ${expression} was found at this scale`;
  canvas.setAttribute("aria-label", `Face ${index + 1}, upright. ${sentence(found)}`);
  card.querySelector(".map p").textContent =
    `${sentence(found)} Bright is where the network found more of it; the line encloses what is above half of ` +
    `the highest value (Grad-CAM, ${cells} x ${cells} cells). A map that looks sensible does not make the label right.`;
  say(`Face ${index + 1}: ${found}.`);
}

at("photo").addEventListener("click", (event) => {
  if (!shown) return;
  const place = at("photo").getBoundingClientRect();
  const x = ((event.clientX - place.left) / place.width) * shown.photo.width;
  const y = ((event.clientY - place.top) / place.height) * shown.photo.height;
  const hits = shown.faces
    .map(({ box: [left, top, right, bottom] }, index) => ({ index, area: (right - left) * (bottom - top), inside: left <= x && x <= right && top <= y && y <= bottom }))
    .filter(({ inside }) => inside)
    .sort((one, other) => one.area - other.area);
  if (!hits.length) return;
  choose(hits[0].index);
  shown.cards[hits[0].index].scrollIntoView({ block: "nearest" });
});
new ResizeObserver(redraw).observe(at("result"));

// Where photos come from

function take(files) {
  if (files.length) look(files[0]);
}

at("file").addEventListener("change", () => {
  take([...at("file").files]);
  at("file").value = ""; // so that the same file can be chosen again
});
let inside = 0; // elements that something is dragged over
for (const kind of ["dragenter", "dragleave", "dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser would open the file
    inside = kind === "drop" ? 0 : inside + (kind === "dragenter") - (kind === "dragleave");
    at("give").classList.toggle("over", inside > 0);
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}

const CAMERA_ERRORS = {
  NotAllowedError: "the camera was not allowed; allow it in the browser's settings for this page, or choose a photo",
  NotFoundError: "no camera was found; choose a photo instead",
  NotReadableError: "the camera cannot be read; another program may be using it",
};

let opening = false;
at("open-camera").addEventListener("click", async () => {
  if (stream) at("take").focus();
  if (stream || opening) return; // a second camera would stay on
  if (!navigator.mediaDevices) {
    complain("browsers give the camera to pages of this machine or over https only; choose a photo, which on a phone can be a new one");
    return;
  }
  say("Waiting for the camera …", true);
  opening = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch (error) {
    complain(CAMERA_ERRORS[error.name] || "the camera cannot be opened; choose a photo instead");
    return;
  } finally {
    opening = false;
  }
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    closeCamera();
    complain("the camera went away; choose a photo instead");
  });
  at("video").srcObject = stream;
  at("camera").hidden = false;
  await at("video").play().catch(() => null);
  say("The camera is on.");
  at("take").focus();
});

function closeCamera() {
  for (const track of stream ? stream.getTracks() : []) track.stop();
  stream = null;
  at("video").srcObject = null;
  at("camera").hidden = true;
  at("open-camera").focus();
}

at("close-camera").addEventListener("click", () => {
  closeCamera();
  say("The camera is off.");
});
at("take").addEventListener("click", async () => {
  const video = at("video");
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await toJpeg(canvas);
  closeCamera();
  look(blob);
});
window.addEventListener("pagehide", () => stream && closeCamera());

at("where").textContent = location.host;
readLimits();
