// Everything works without this file. It copies code, and sends packages in pieces: with a bar that shows how far,
// and going on where a broken connection stopped.
"use strict";

// -- copying ----------------------------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const done = await copied(button.parentElement.querySelector("code"));
  button.dataset.label ??= button.textContent;
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  clearTimeout(button.timer);
  button.timer = setTimeout(() => { button.textContent = button.dataset.label; }, 2000);
});

async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    // Without a secure connection there is no clipboard: the text is selected, and the old way is tried.
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}

function prepare(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.setAttribute("aria-live", "polite");
  }
}

prepare(document);
document.addEventListener("htmx:load", (event) => prepare(event.target));

// -- submitting -------------------------------------------------------------------------------------------------------

const PIECE = 4 * 2 ** 20;
const TRIES = 5;

document.querySelector("form#submit")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const file = form.elements.package.files[0];
  const button = form.querySelector("button");
  refuse("");
  if (file.size > Number(form.dataset.largest)) return refuse("This file is larger than this dock takes.");
  button.disabled = true;
  document.getElementById("sending").hidden = false;
  try {
    const sha256 = await hash(file, (share) => progress("Reading", share));
    location.assign(`/learnwares/${await submitted(file, sha256)}`);
  } catch (error) {
    refuse(error.message);
    document.getElementById("sending").hidden = true;
    button.disabled = false;
    button.focus();
  }
});

async function submitted(file, sha256) {
  try {
    let { offset } = await call("POST", "/v1/uploads", { sha256, size: file.size });
    while (offset < file.size) offset = await sent(file, sha256, offset);
    progress("Sending", 1);
    return (await call("POST", "/v1/learnwares", { sha256 })).id;
  } catch (error) {
    if (error.code === "duplicate" && error.learnware) return error.learnware;
    throw error;
  }
}

// One piece, tried again when the connection breaks; the server says where to go on.
async function sent(file, sha256, offset) {
  for (let attempt = 1; ; attempt++) {
    try {
      return (await put(file.slice(offset, offset + PIECE), sha256, offset, file.size)).offset;
    } catch (error) {
      if (error.code === "wrong-offset" && Number.isInteger(error.offset)) return error.offset;
      if (error.code || attempt === TRIES) throw error;
      progress("Connection lost, trying again", offset / file.size);
      await new Promise((next) => setTimeout(next, 500 * 2 ** attempt));
      ({ offset } = await call("POST", "/v1/uploads", { sha256, size: file.size }).catch(() => ({ offset })));
    }
  }
}

// fetch() does not tell how far a request is; XMLHttpRequest does.
function put(piece, sha256, offset, size) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/v1/uploads/${sha256}?offset=${offset}`);
    request.setRequestHeader("X-CSRF-Token", document.body.dataset.csrf);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => progress("Sending", (offset + event.loaded) / size);
    request.onerror = () => reject(new Error("The connection broke. Submit the same file again to go on."));
    request.onload = () => request.status < 300 ? resolve(request.response) : reject(refusal(request.status, request.response));
    request.send(piece);
  });
}

async function call(method, path, body) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": document.body.dataset.csrf };
  const response = await fetch(path, { method, headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw refusal(response.status, answer);
  return answer;
}

function refusal(status, answer) {
  const error = new Error(answer?.message ?? `The server answered ${status}.`);
  return Object.assign(error, { code: answer?.error ?? `http-${status}` }, answer?.details ?? {}, {
    offset: answer?.offset ?? answer?.details?.offset,
    learnware: answer?.learnware ?? answer?.details?.learnware,
  });
}

function progress(what, share) {
  document.getElementById("progress").value = share;
  document.getElementById("progress-label").textContent = `${what} ${Math.floor(100 * share)} %`;
}

function refuse(message) {
  const alert = document.getElementById("alert");
  alert.querySelector("p").textContent = message;
  alert.hidden = !message;
}

// -- SHA-256, piece by piece: crypto.subtle wants the whole file in memory, and a secure connection ------------------

const ROUNDS = constants(64, 1 / 3);

async function hash(file, report) {
  const state = constants(8, 1 / 2);
  let rest = new Uint8Array(0);
  for (let start = 0; start < file.size; start += PIECE) {
    const piece = new Uint8Array(await file.slice(start, start + PIECE).arrayBuffer());
    const bytes = new Uint8Array(rest.length + piece.length);
    bytes.set(rest);
    bytes.set(piece, rest.length);
    const whole = bytes.length - bytes.length % 64;
    digest(state, bytes, whole);
    rest = bytes.slice(whole);
    report(Math.min(1, (start + PIECE) / file.size));
  }
  const end = new Uint8Array(rest.length < 56 ? 64 : 128);
  end.set(rest);
  end[rest.length] = 0x80;
  new DataView(end.buffer).setBigUint64(end.length - 8, BigInt(file.size) * 8n);
  digest(state, end, end.length);
  return [...state].map((word) => word.toString(16).padStart(8, "0")).join("");
}

function digest(state, bytes, length) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const w = new Uint32Array(64);
  for (let at = 0; at < length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getUint32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15], b = w[i - 2];
      const s0 = turn(a, 7) ^ turn(a, 18) ^ (a >>> 3);
      const s1 = turn(b, 17) ^ turn(b, 19) ^ (b >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const t1 = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0;
      const t2 = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
  }
}

function turn(word, by) {
  return (word >>> by) | (word << (32 - by));
}

// The first 32 bits of the fractional parts of roots of the first primes, as the standard defines them.
function constants(count, power) {
  const found = new Uint32Array(count);
  for (let n = 2, i = 0; i < count; n++) {
    let prime = true;
    for (let k = 2; k * k <= n; k++) if (n % k === 0) prime = false;
    if (prime) {
      const root = n ** power;
      found[i++] = (root - Math.floor(root)) * 2 ** 32;
    }
  }
  return found;
}
