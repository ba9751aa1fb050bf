// The same photo two to four ways, side by side.

import { labels, picture } from "./api.js";
import { paint, rgb } from "./viewer.js";

const MOST = 4;

function option(text, value) {
  return Object.assign(document.createElement("option"), { textContent: text, value });
}

function select(label, options, at) {
  const made = document.createElement("select");
  made.setAttribute("aria-label", label);
  made.append(...options);
  made.selectedIndex = Math.min(at, options.length - 1);
  return made;
}

// Rows of method and refinement; the last ones are empty until they are chosen.
export function fillWays(place, methods) {
  const refiners = methods[0].settings.find(one => one.many).choices.filter(name => name !== "regions");
  const other = methods.length > 1 ? methods[0].models.length : Math.min(1, methods[0].models.length - 1);
  for (let row = 0; row < MOST; row++) {
    const pairs = methods.flatMap(one => one.models.map(model => option(`${one.name} on ${model}`, `${one.name} on ${model}`)));
    const ways = [option("own refinement", ""), option("no refinement", "none"), ...refiners.map(name => option(`refined by ${name}`, name))];
    const one = select(`Way ${row + 1}`, row < 2 ? pairs : [option("nothing", ""), ...pairs], row === 1 ? other : 0);
    const div = document.createElement("div");
    div.append(one, select(`Refinement of way ${row + 1}`, ways, pairs.length === 1 ? row : 0));
    place.append(div);
  }
}

// Run the ways one after the other; each is drawn when it is there.
export async function runWays(place, columns, run, draw, mine) {
  columns.replaceChildren();
  for (const row of place.children) {
    const [pair, refiner] = [...row.children].map(one => one.value);
    if (!pair || mine.stopped) continue;
    const [method, model] = pair.split(" on ");
    const settings = refiner ? { refiners: refiner === "none" ? [] : [refiner] } : {};
    const done = await run({ method, model, settings: JSON.stringify(settings) });
    const title = `${pair}${refiner ? `, ${refiner === "none" ? "no refinement" : refiner}` : ""}`;
    columns.append(await draw(Object.assign(done, { title })));
  }
}

// A result as a picture to press, with its time and what it found below.
export async function column(done, take) {
  const [map, image] = await Promise.all([labels(done.id), picture(new Image(), `api/jobs/${done.id}/photo.jpg`, "")]);
  const canvas = document.createElement("canvas"), drawn = document.createElement("canvas");
  paint(drawn, map, done.result.classes.map(one => ({ colour: rgb(one.colour), alpha: one.name === "background" ? 0 : 255, edge: one.name !== "background" })));
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, map.width, map.height);
  context.globalAlpha = 0.65;
  context.drawImage(drawn, 0, 0);
  const button = Object.assign(document.createElement("button"), { type: "button", className: "column", onclick: () => take(done) });
  button.setAttribute("aria-label", `Go on with ${done.title}`);
  button.append(canvas);
  const found = done.result.classes.filter(one => one.area && one.name !== "background").map(one => `${one.name} ${Math.round(100 * one.area)} %`);
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.append(Object.assign(document.createElement("b"), { textContent: done.title }), document.createElement("br"), `${done.seconds.toFixed(2)} s: ${found.join(", ") || "nothing found"}`);
  figure.append(button, caption);
  return figure;
}
