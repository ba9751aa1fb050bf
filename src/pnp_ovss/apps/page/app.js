// The page: what is asked for on the right, the result on the left.

import { Fault, ask, cancel, edit, follow, json, labels, picture, post } from "./api.js";
import { column, fillWays, runWays } from "./compare.js";
import { Viewer, make, rgb } from "./viewer.js";

const $ = id => document.getElementById(id);
const icon = name => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
};
const share = part => part > 0 && part < 0.0005 ? "< 0.1 %" : `${(100 * part).toFixed(part > 0 && part < 0.0995 ? 1 : 0)} %`;
const SINGLE = { "labels.png": ["Label map (PNG)", ".png"], "overlay.png": ["Overlay (PNG)", ".overlay.png"], result: ["Record with masks (JSON)", ".json"] };
const NAMES = { files: "Label maps, overlays and records (ZIP)", coco: "COCO", yolo: "YOLO", voc: "Pascal VOC", ade: "ADE20K", "label-studio": "Label Studio", cvat: "CVAT", supervision: "supervision" };
const FIELDS = { photo: "photo", classes: "classes", method: "settings", model: "settings", preset: "settings", present: "settings", settings: "settings" };

// A photo and what is known of it: {file or null, of: id of a job with the photo, name, jobs: results, newest last}.
let photos = [], current = 0, api = null, running = null, turn = 0;
const hidden = new Set();
let only = null;

const viewer = new Viewer({
  hover(label) {
    const one = shown()?.classes[label];
    for (const entry of $("legend").children) entry.classList.toggle("on", entry.dataset.name === one?.name);
    if (!one) return null;
    const chip = make("i");
    chip.style.background = one.colour;
    const sure = one.confidence == null ? "" : `, confidence ${one.confidence.toFixed(2)}`;
    return [chip, make("b", { textContent: one.name }), sure];
  },
  pick: pixel => openRegion(pixel),
  say: pixel => {
    const one = pixel && shown()?.classes[pixel.label];
    if (one) say(one.confidence == null ? one.name : `${one.name}, confidence ${one.confidence.toFixed(2)}`);
  },
});

const photo = () => photos[current];
const job = () => photo()?.jobs.at(-1);
const shown = () => job()?.result;
const say = text => { $("status").textContent = text; };

function clearErrors() {
  for (const one of document.querySelectorAll(".error, [aria-invalid]")) one.classList.contains("error") ? one.textContent = "" : one.removeAttribute("aria-invalid");
}

function complain(fault, place) {
  if (!(fault instanceof Fault)) console.error(fault);
  if (fault.field === "cancelled") return say("Cancelled.");
  const where = place || FIELDS[fault.field] || "run";
  $(`error-${where}`).textContent = fault.message;
  ({ photo: $("files"), classes: $("classes") })[where]?.setAttribute("aria-invalid", "true");
  if (where === "settings") $("more").open = true;
  if (!place) say("That did not work.");
}

function looks() {
  return shown().classes.map(one => {
    const away = one.name === "background" || hidden.has(one.name);
    if (only) return one.name === only ? { colour: rgb(one.colour), alpha: 255, edge: true } : { colour: [12, 14, 16], alpha: 150 };
    return { colour: rgb(one.colour), alpha: away ? 0 : 255, edge: !away };
  });
}

function repaint() {
  if (!shown()) return;
  viewer.paint(looks());
  for (const entry of $("legend").children) {
    const name = entry.dataset.name, off = only ? only !== name : hidden.has(name);
    entry.classList.toggle("off", off);
    entry.querySelector(".who").setAttribute("aria-pressed", String(!off));
    entry.querySelector(".who use").setAttribute("href", off ? "#i-off" : "#i-eye");
    entry.querySelector(".only").setAttribute("aria-pressed", String(only === name));
  }
}

function drawLegend() {
  const entries = (shown()?.classes || []).filter(one => one.name !== "background").map(one => {
    const chip = make("span", { className: "chip" });
    chip.style.background = one.colour;
    const sure = one.confidence == null ? "" : ` · ${one.confidence.toFixed(2)}`;
    const note = one.absent ? `absent (${one.presence.toFixed(2)})` : one.area ? share(one.area) + sure : "no pixel";
    const who = make("button", { type: "button", className: "who", title: "Hide or show" }, chip, make("span", { textContent: one.name }), make("small", { textContent: note, title: "share of the photo · confidence" }), icon("eye"));
    who.onclick = () => {
      only = null;
      if (!hidden.delete(one.name)) hidden.add(one.name);
      repaint();
    };
    const alone = make("button", { type: "button", className: "act only", title: "This class alone" }, icon("only"));
    alone.setAttribute("aria-label", `${one.name} alone`);
    alone.onclick = () => {
      only = only === one.name ? null : one.name;
      repaint();
    };
    const change = make("button", { type: "button", className: "act edit", title: "Name, words, colour" }, icon("edit"));
    change.setAttribute("aria-label", `Edit ${one.name}`);
    change.onclick = () => openClass(one);
    const entry = make("li", {}, who, alone, change);
    entry.dataset.name = one.name;
    return entry;
  });
  $("legend").replaceChildren(...entries);
}

function drawTiles() {
  const id = job()?.id, result = shown();
  const figure = (address, alt, ...caption) => make("figure", {}, make("img", { src: address, alt, loading: "lazy", width: 420, height: 420 }), make("figcaption", {}, ...caption));
  const heats = (result?.salience || []).map((name, at) => figure(`api/jobs/${id}/salience/${at}`, `Salience of ${name}`, make("b", { textContent: name })));
  $("salience").replaceChildren(...heats);
  const steps = (result?.passes || []).map((away, at) => make("section", {}, make("h2", { textContent: `Pass ${at + 1}` }), make("div", {},
    figure(`api/jobs/${id}/passes/${at}/saw`, `What pass ${at + 1} saw`, away ? `saw, ${away} patches hidden` : "saw the whole photo"),
    figure(`api/jobs/${id}/passes/${at}/found`, `What pass ${at + 1} found`, "found"))));
  $("passes").replaceChildren(...steps);
  if (result && !steps.length) $("passes").append(make("p", { className: "lead", textContent: "This method looks once, or the result was made without passes." }));
}

function drawDownloads() {
  const done = photos.filter(one => one.jobs.length), form = $("format").value;
  const link = $("download"), ready = done.length > 0 && (!(form in SINGLE) || job());
  link.setAttribute("aria-disabled", String(!ready));
  link.removeAttribute("href");
  $("downloads").textContent = ready ? "" : "There is nothing to download yet.";
  if (!ready) return;
  link.href = form in SINGLE ? `api/jobs/${job().id}/${form}` : `api/export/${form}?${done.map(one => `job=${one.jobs.at(-1).id}`).join("&")}`;
  link.download = form in SINGLE ? job().name.replace(/\.[^.]*$/, "") + SINGLE[form][1] : `pnp-ovss-${form}.zip`;
  $("downloads").textContent = form in SINGLE || done.length < 2 ? "" : `${done.length} photos in one file.`;
}

function drawStrip() {
  $("strip").hidden = photos.length < 2;
  $("strip").replaceChildren(...photos.map((one, at) => {
    const state = one.jobs.length ? `${one.jobs.at(-1).seconds.toFixed(1)} s` : one.state || "not yet";
    const tile = make("button", { type: "button" }, make("img", { alt: "", src: one.jobs.length ? `api/jobs/${one.jobs.at(-1).id}/photo.jpg` : one.address || "" }), make("span", { textContent: one.name }), make("span", { textContent: state }));
    tile.setAttribute("aria-current", String(at === current));
    tile.setAttribute("aria-label", `${one.name}, ${state}`);
    tile.onclick = () => { current = at; clearErrors(); show(); };
    return tile;
  }));
}

function describe({ seconds, result }) {
  const match = result.match == null ? "" : `, match ${result.match.toFixed(2)}`;
  say([`${result.width} × ${result.height} pixels in ${seconds.toFixed(2)} s by ${result.method} on ${result.model}${match}.`, ...result.doubts].join(" "));
}

// Show the current photo with its result, or alone; nothing of another one stays.
async function show() {
  const mine = ++turn, now = job(), one = photo();
  drawLegend();
  drawTiles();
  drawDownloads();
  drawStrip();
  $("columns").replaceChildren();
  $("undo").disabled = !one || one.jobs.length < 2;
  for (const tile of $("examples").children) tile.setAttribute("aria-pressed", String(tile.dataset.id === one?.of));
  if (now) {
    try {
      const [map] = await Promise.all([labels(now.id), picture($("photo"), `api/jobs/${now.id}/photo.jpg`, `The photo ${now.name}`)]);
      if (mine !== turn) return;
      $("hint").textContent = "";
      viewer.show(map, map);
      repaint();
      describe(now);
      if (!now.id.startsWith("example-")) history.replaceState(null, "", `#${now.id}`);
    } catch (fault) {
      if (mine === turn) { viewer.clear(); complain(fault); }
    }
    return;
  }
  viewer.clear();
  history.replaceState(null, "", location.pathname);
  $("hint").textContent = one ? "Press Segment to see where things are." : "Choose a photo, or take an example.";
  if (!one?.address) return;
  try {
    const image = await picture($("photo"), one.address, `The photo ${one.name}`);
    if (mine === turn) viewer.show({ width: image.naturalWidth, height: image.naturalHeight }, null);
    $("hint").textContent = "";
  } catch {
    if (mine === turn) $("hint").textContent = "This browser cannot show the photo; the result will.";
  }
}

// From now on these photos are the page's.
function begin(some, text) {
  photos = some;
  current = 0;
  hidden.clear();
  only = null;
  clearErrors();
  say(text);
  return show();
}

function take(files) {
  const chosen = files.filter(file => file.size);
  if (!chosen.length) return;
  stop();
  for (const one of photos) if (one.address) URL.revokeObjectURL(one.address);
  begin(chosen.slice(0, 50).map(file => ({ file, of: null, name: file.name, jobs: [], address: URL.createObjectURL(file) })), chosen.length > 1 ? `${chosen.length} photos.` : "");
}

function takeResult(done) {
  $("classes").value = done.result.classes.map(one => one.name).filter(name => name !== "background").join(", ");
  return begin([{ file: null, of: done.id, name: done.name, jobs: [done] }], "");
}

function parsed(text) {
  return text.split(/[,\n]/).map(entry => entry.trim()).filter(Boolean).map(entry => {
    const [name, words] = entry.split("=");
    const list = (words ?? name).split("|").map(word => word.trim()).filter(Boolean);
    return { name: (words == null ? list[0] : name).trim(), words: list };
  });
}

const written = entries => entries.map(({ name, words }) => words.length === 1 && words[0] === name ? name : `${name}=${words.join("|")}`).join(", ");

function settings() {
  const given = {};
  for (const input of $("settings").querySelectorAll("[data-name]")) {
    const value = input.type === "checkbox" ? input.checked : input.type === "number" ? (input.value === "" ? null : Number(input.value)) : input.value;
    if (value !== null && String(value) !== input.dataset.first) given[input.dataset.name] = value;
  }
  const refiners = [...$("refiners").querySelectorAll("input:checked")].map(input => input.value);
  if (refiners.join() !== $("refiners").dataset.first) given.refiners = refiners;
  return given;
}

function form(more = {}) {
  const [method, model] = $("method").value.split(" on ");
  return { classes: $("classes").value, method, model, present: $("present").checked ? "auto" : "all", settings: JSON.stringify(settings()), ...more };
}

function progress(now) {
  const first = now.state === "waiting";
  say(first ? (now.before ? `Waiting, ${now.before} before you.` : "Waiting.") : now.step ? `${now.step} ${now.done + 1} of ${now.total}` : "Working.");
  $("progress").firstElementChild.style.width = first || !now.total ? "4%" : `${Math.round(100 * (now.done + 0.5) / now.total)}%`;
}

function busy(on) {
  $("run").disabled = $("name").disabled = on;
  $("cancel").hidden = $("progress").hidden = !on;
  $("frame").classList.toggle("busy", on);
  $("progress").firstElementChild.style.width = "0";
}

function stop() {
  if (!running) return;
  running.stopped = true;
  for (const id of running.ids) cancel(id);
  running = null;
  busy(false);
}

// Start work that `stop` ends; what it raises is said at the field.
async function start(work) {
  stop();
  clearErrors();
  const mine = running = { ids: new Set(), stopped: false };
  busy(true);
  const run = async (path, fields, heard = progress) => {
    if (mine.stopped) throw new Fault("", "cancelled");
    const begun = await post(path, fields);
    if (mine.stopped) {
      cancel(begun.id);
      throw new Fault("", "cancelled");
    }
    mine.ids.add(begun.id);
    try {
      return await follow(begun, now => mine.stopped || heard(now));
    } finally {
      mine.ids.delete(begun.id);
    }
  };
  try {
    await work(run, mine);
  } catch (fault) {
    if (!mine.stopped || fault.field === "cancelled") complain(fault);
  } finally {
    if (running === mine) {
      running = null;
      busy(false);
    }
  }
}

const source = one => one.of ? { of: one.of } : { photo: one.file };

async function segmentOne(run, one, heard) {
  try {
    const ask = () => run("api/segment", form(source(one)), heard);
    const done = await ask().catch(fault => {
      if (fault.field !== "job" || !one.file) throw fault;
      one.of = null; // its photo was forgotten meanwhile
      return ask();
    });
    one.of = done.id;
    one.jobs = [done];
  } catch (fault) {
    one.state = fault.field === "cancelled" ? "cancelled" : "failed";
    throw fault;
  }
}

function segment() {
  return start(async (run, mine) => {
    if (!photos.length) throw new Fault("there is no photo yet; choose one, or take an example", "photo");
    const all = photos, waiting = [...all], several = all.length > 1, faults = [];
    for (const one of all) Object.assign(one, { jobs: [], state: "waiting" });
    if (several) show();
    const heard = several ? () => say(`${all.filter(one => one.jobs.length).length} of ${all.length} photos are done.`) : progress;
    const work = async () => {
      for (let one = waiting.shift(); one && !mine.stopped; one = waiting.shift()) {
        await segmentOne(run, one, heard).catch(fault => faults.push([one, fault]));
        if (all !== photos) return;
        drawStrip();
        drawDownloads();
        if (one === photo()) await show();
      }
    };
    await Promise.all(several ? [work(), work()] : [work()]);
    if (mine.stopped) throw new Fault("", "cancelled");
    if (several) say(`${all.length - faults.length} of ${all.length} photos are done.`);
    for (const [one, fault] of faults) throw several ? new Fault(`${one.name}: ${fault.message}`, fault.field) : fault;
  });
}

function suggest() {
  return start(async run => {
    const one = photo();
    if (!one) throw new Fault("there is no photo yet; choose one, or take an example", "photo");
    const [method, model] = $("method").value.split(" on ");
    const done = await run("api/name", { ...source(one), model: method === "pnp" ? model : null });
    if (!one.of && one.file) one.of = done.id;
    $("classes").value = done.names.join(", ");
    say(done.names.length ? "Names are there; press Segment." : "The model is sure of no name; type some.");
  });
}

// Each change is a job of its own, and the one before is what undo goes back to.
async function change(what, place) {
  try {
    const one = photo(), changed = await edit(job().id, what);
    one.jobs.push(changed);
    await show();
    return true;
  } catch (fault) {
    complain(fault, place);
    return false;
  }
}

function undo() {
  const one = photo();
  if (!one || one.jobs.length < 2) return;
  const gone = one.jobs.pop();
  if (gone.classes != null) $("classes").value = gone.classes;
  cancel(gone.id);
  show();
}

function openClass(one) {
  const entry = parsed($("classes").value).find(other => other.name.toLowerCase() === one.name.toLowerCase()) || { name: one.name, words: [one.name] };
  clearErrors();
  $("edit-title").textContent = one.name;
  $("edit-name").value = one.name;
  $("edit-words").value = entry.words.join(", ");
  $("edit-colour").value = one.colour;
  $("edit").showModal();
  $("edit-save").onclick = async () => {
    const name = $("edit-name").value.trim(), words = $("edit-words").value.split(",").map(word => word.trim()).filter(Boolean);
    const before = $("classes").value, entries = parsed(before), colour = $("edit-colour").value;
    const mine = entries.find(other => other.name === entry.name) || entries[entries.push({ ...entry }) - 1];
    if (!name || /[,=|\n]/.test(name) || !words.length) return complain(new Fault("expected a name without , = and |, and at least one word"), "edit");
    const again = words.join() !== entry.words.join();
    Object.assign(mine, { name, words });
    if (name !== one.name && !again) {
      if (!await change({ rename: one.name, to: name }, "edit")) return;
      $("classes").value = written(entries);
      job().classes = before;
      if (hidden.delete(one.name)) hidden.add(name);
      if (only === one.name) only = name;
      repaint();
    }
    if (colour !== one.colour && !again && !await change({ colour: name, to: colour }, "edit")) return;
    $("edit").close();
    if (again) {
      $("classes").value = written(entries);
      segment();
    }
  };
}

function openRegion({ x, y, label }) {
  const result = shown(), map = viewer.map, one = result.classes[label];
  const place = [Math.min(result.width - 1, Math.floor((x + 0.5) * result.width / map.width)), Math.min(result.height - 1, Math.floor((y + 0.5) * result.height / map.height))];
  clearErrors();
  $("region-title").textContent = `Region of ${one.name}`;
  $("region-classes").replaceChildren(...result.classes.filter(other => other !== one && other.name !== "background").map(other => make("option", { value: other.name })));
  $("region-to").value = "";
  $("region-delete").hidden = one.name === "background";
  $("region").showModal();
  const give = async to => {
    if (!to) return complain(new Fault("expected the name of a class"), "region");
    if (await change({ region: place, to }, "region")) $("region").close();
  };
  $("region-delete").onclick = () => give("background");
  $("region-save").onclick = () => give($("region-to").value.trim());
}

function drawSettings() {
  const [name, model] = $("method").value.split(" on "), method = api.methods.find(one => one.name === name);
  const licence = method.licences[model] ? ` Licence of the weights: ${method.licences[model]}.` : "";
  $("about").textContent = `${method.about}. ${method.source}.${licence}`;
  const refiners = method.settings.find(one => one.many);
  $("refiners").dataset.first = refiners.default.join();
  $("refiners").replaceChildren(...refiners.choices.map(one => make("label", {}, make("input", { type: "checkbox", value: one, checked: refiners.default.includes(one) }), one)));
  $("settings").replaceChildren(...method.settings.filter(one => !one.many).map(one => {
    const number = typeof one.default === "number";
    const input = one.choices ? make("select", {}, ...one.choices.map(value => make("option", { value, textContent: value, selected: value === one.default })))
      : make("input", number ? { type: "number", step: "any", min: one.low, max: one.high, value: one.default } : { type: "checkbox", checked: one.default });
    Object.assign(input.dataset, { name: one.name, first: String(one.default) });
    return make("label", {}, make("span", { textContent: one.name }), input, make("small", { textContent: one.help }));
  }));
}

function tab(name, focus) {
  for (const one of document.querySelectorAll("[role=tab]")) {
    const on = one.id === `tab-${name}`;
    one.setAttribute("aria-selected", String(on));
    one.tabIndex = on ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !on;
    if (on && focus) one.focus();
  }
}

async function filesOf(transfer) {
  const found = [], walk = async entry => {
    if (entry.isFile) return found.push(await new Promise((done, fail) => entry.file(done, fail)));
    const reader = entry.createReader();
    for (let some; (some = await new Promise((done, fail) => reader.readEntries(done, fail))).length;) for (const one of some) await walk(one);
  };
  for (const entry of [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean)) await walk(entry);
  return (found.length ? found : [...transfer.files]).filter(file => !file.type || file.type.startsWith("image/")).sort((a, b) => a.name.localeCompare(b.name));
}

function listen() {
  $("files").onchange = () => { take([...$("files").files]); $("files").value = ""; };
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, async event => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(await filesOf(event.dataTransfer));
  });
  document.addEventListener("paste", event => take([...event.clipboardData.files]));
  $("run").onclick = segment;
  $("cancel").onclick = () => { stop(); say("Cancelled."); };
  $("name").onclick = suggest;
  $("undo").onclick = undo;
  $("format").onchange = drawDownloads;
  $("method").onchange = drawSettings;
  $("classes").onkeydown = event => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); if (!running) segment(); }
  };
  document.addEventListener("keydown", event => {
    if (event.key === "z" && (event.ctrlKey || event.metaKey) && !/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) { event.preventDefault(); undo(); }
  });
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [at, one] of tabs.entries()) {
    one.onclick = () => tab(one.id.slice(4));
    one.onkeydown = event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) tab(tabs[(at + step + tabs.length) % tabs.length].id.slice(4), true);
    };
  }
  for (const one of document.querySelectorAll("[data-close]")) one.onclick = () => one.closest("dialog").close();
  for (const [input, button] of [["edit-name", "edit-save"], ["edit-words", "edit-save"], ["region-to", "region-save"]]) {
    $(input).onkeydown = event => { if (event.key === "Enter") { event.preventDefault(); $(button).click(); } };
  }
  $("theme").onclick = () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = localStorage.theme = next;
  };
  $("compare").onclick = () => start(async (run, mine) => {
    if (!photo()) throw new Fault("there is no photo yet; choose one, or take an example", "photo");
    const one = photo(), take = done => { one.jobs.push(done); tab("labels"); show(); };
    await runWays($("ways"), $("columns"), way => run("api/segment", form({ ...source(one), ...way })), done => column(done, take), mine);
    say("Press a picture to go on with it.");
  });
  window.addEventListener("pagehide", stop);
}

async function main() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = localStorage.theme || (dark ? "dark" : "light");
  listen();
  viewer.clear();
  api = await json("api/methods");
  $("limits").textContent = `Up to ${Math.round(api.limits.bytes / 1e6)} MB and ${api.limits.megapixels} megapixels each. They stay on the server for an hour at most.`;
  $("method").replaceChildren(...api.methods.flatMap(one => one.models.map(model => make("option", { textContent: `${one.name} on ${model}` }))));
  $("format").replaceChildren(...Object.entries(SINGLE).map(([value, [textContent]]) => make("option", { value, textContent })), ...api.formats.map(value => make("option", { value, textContent: value === "files" ? NAMES[value] : `${NAMES[value] || value} (ZIP)` })));
  drawSettings();
  fillWays($("ways"), api.methods);
  const examples = await Promise.all(api.examples.map(id => json(`api/jobs/${id}`)));
  $("examples").replaceChildren(...examples.map(one => {
    const names = one.result.salience.join(", ");
    const tile = make("button", { type: "button", title: names }, make("img", { src: `api/jobs/${one.id}/photo.jpg`, alt: `Example: ${names}`, width: 76, height: 76 }));
    tile.dataset.id = one.id;
    tile.onclick = () => { stop(); takeResult(one); };
    return tile;
  }));
  const kept = location.hash ? await json(`api/jobs/${encodeURIComponent(location.hash.slice(1))}`).catch(() => null) : null;
  await takeResult(kept?.result ? kept : examples[0]);
}

main().catch(fault => complain(fault));
