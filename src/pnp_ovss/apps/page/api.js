// Asking the service: forms, jobs and what came of them. All addresses are below the page's own.

export class Fault extends Error {
  constructor(message, field) {
    super(message);
    this.field = field || "";
  }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("the server does not answer; is it still running?");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Fault(body.error || `the server answered ${answer.status}`, body.field);
}

export const json = async (path, options) => (await ask(path, options)).json();

export function post(path, fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value != null) form.append(name, value);
  return json(path, { method: "POST", body: form });
}

export const edit = (id, change) =>
  json(`api/jobs/${id}/edit`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(change) });

export const cancel = id => fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});

// The job once it is over; `heard` gets every state before.
export function follow(job, heard) {
  return new Promise((done, fail) => {
    const events = new EventSource(`api/jobs/${job.id}/events`);
    events.onmessage = event => {
      const now = JSON.parse(event.data);
      heard(now);
      if (now.state === "waiting" || now.state === "working") return;
      events.close();
      if (now.state === "done") done(now);
      else fail(now.state === "cancelled" ? new Fault("", "cancelled") : new Fault(now.error, now.field));
    };
    events.onerror = () => { // else it asks again by itself
      if (events.readyState === EventSource.CLOSED) fail(new Fault("the server has forgotten the request; press Segment again"));
    };
  });
}

// The labels as the page shows them: a byte per pixel.
export async function labels(id) {
  const answer = await ask(`api/jobs/${id}/view`);
  const [width, height] = ["X-Width", "X-Height"].map(name => Number(answer.headers.get(name)));
  return { width, height, values: new Uint8Array(await answer.arrayBuffer()) };
}

export function picture(image, address, alt) {
  return new Promise((done, fail) => {
    image.onload = () => done(image);
    image.onerror = () => fail(new Fault("a picture of the result is gone; segment again"));
    image.alt = alt;
    image.src = address;
  });
}
