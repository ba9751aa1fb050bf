// The same photo two to four ways, side by side.

import { labels, picture } from "./api.js";
import { make, paint, rgb } from "./viewer.js";

function select(label, options, at) {
  const made = make("select", {}, ...options.map(([textContent, value]) => make("option", { textContent, value })));
  made.setAttribute("aria-label", label);
  made.selectedIndex = at;
  return made;
}

// Rows of method and refinement; the last ones are empty until they are chosen.
export function fillWays(place, methods) {
  const refiners = methods[0].settings.find(one => one.many).choices.filter(name => name !== "regions");
  const other = methods.length > 1 ? methods[0].models.length : Math.min(1, methods[0].models.length - 1);
  for (let row = 0; row < 4; row++) {
    const pairs = methods.flatMap(one => one.models.map(model => [`${one.name} on ${model}`, `${one.name} on ${model}`]));
    const ways = [["own refinement", ""], ["no refinement", "none"], ...refiners.map(name => [`refined by ${name}`, name])];
    const one = select(`Way ${row + 1}`, row < 2 ? pairs : [["nothing", ""], ...pairs], row === 1 ? other : 0);
    place.append(make("div", {}, one, select(`Refinement of way ${row + 1}`, ways, pairs.length === 1 ? row % 2 : 0)));
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
  const canvas = make("canvas", { width: map.width, height: map.height }), drawn = make("canvas");
  paint(drawn, map, done.result.classes.map(one => ({ colour: rgb(one.colour), alpha: one.name === "background" ? 0 : 255, edge: one.name !== "background" })));
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, map.width, map.height);
  context.globalAlpha = 0.65;
  context.drawImage(drawn, 0, 0);
  const button = make("button", { type: "button", className: "column", onclick: () => take(done) }, canvas);
  button.setAttribute("aria-label", `Go on with ${done.title}`);
  const found = done.result.classes.filter(one => one.area && one.name !== "background").map(one => `${one.name} ${Math.round(100 * one.area)} %`);
  return make("figure", {}, button, make("figcaption", {}, make("b", { textContent: done.title }), make("br"), `${done.seconds.toFixed(2)} s: ${found.join(", ") || "nothing found"}`));
}
