// What pages do beyond plain HTML: local times, countdowns, live updates, and the sign-in link's fragment. All of them work without.
"use strict";

const span = (seconds) => {
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  if (hours === 0 && minutes === 0) return `${seconds} s`;
  if (hours === 0) return `${minutes} min`;
  return minutes === 0 ? `${hours} h` : `${hours} h ${minutes} min`;
};

// Times were written in UTC; they keep it as their title. The day is left out where it is today's and the page left it out.
const times = (root) => {
  for (const one of root.querySelectorAll("time[datetime]:not([title])")) {
    const at = new Date(one.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    one.title = one.dateTime.replace("T", " ").replace("Z", " UTC");
    const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" };
    const day = { year: "numeric", month: "short", day: "numeric" };
    const today = !one.textContent.includes("-") && at.toDateString() === new Date().toDateString();
    one.textContent = at.toLocaleString(undefined, today ? clock : { ...day, ...clock });
  }
};

// The service's clock counts: the page says what it was when it was made.
const skew = () => {
  const now = Date.parse(document.documentElement.dataset.now || "");
  return Number.isNaN(now) ? 0 : now - Date.now();
};
let offset = skew();
const count = () => {
  const now = Date.now() + offset;
  for (const one of document.querySelectorAll("[data-until]")) {
    const left = Math.round((Date.parse(one.dataset.until) - now) / 1000);
    one.textContent = left > 0 ? `${span(left)} left` : "over";
  }
  for (const one of document.querySelectorAll("[data-since]")) {
    one.textContent = `${span(Math.max(0, Math.round((now - Date.parse(one.dataset.since)) / 1000)))} ago`;
  }
};

const main = () => document.querySelector("main");

// Nothing moves under the finger: a page that somebody works on is renewed only when they say so.
const isTouched = () => {
  const at = document.activeElement;
  if (at && at !== document.body && main().contains(at) && at.closest("form, details")) return true;
  if (main().querySelector("details[open]")) return true;
  return [...main().querySelectorAll("input")].some((one) =>
    one.type === "text" ? one.value !== one.defaultValue : one.type !== "hidden" && one.checked !== one.defaultChecked);
};

const say = (text) => {
  const line = document.querySelector(".live");
  if (line && line.textContent !== text) line.textContent = text;
};

// What a page says, but for what only time changes.
const said = (root) => {
  const copy = root.cloneNode(true);
  for (const one of copy.querySelectorAll("time, [data-until], [data-since]")) one.remove();
  return copy.innerHTML;
};

let shown = main() ? said(main()) : "";
let fresh = null;
const show = () => {
  if (!fresh) return;
  document.title = fresh.title;
  document.documentElement.dataset.now = fresh.documentElement.dataset.now;
  offset = skew();
  shown = said(fresh.querySelector("main"));
  main().replaceWith(fresh.querySelector("main"));
  fresh = null;
  const news = document.querySelector(".news");
  if (news) news.hidden = true;
  times(document);
  count();
};

// Where the page is, from the name of its stream: after a form was refused, the address is the form's.
let place = "";

const renew = async () => {
  const answer = await fetch(place, { headers: { Accept: "text/html" }, credentials: "same-origin", cache: "no-store" });
  if (answer.status === 401) { location.replace(place); return; }
  if (!answer.ok) throw new Error(answer.statusText);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.querySelector("main");
  if (!next || said(next) === shown) return;
  fresh = page;
  const news = document.querySelector(".news");
  // What is about to be decided is what was read.
  const asks = [main(), next].some((one) => one.dataset.live === "ask");
  if (news && (asks || isTouched())) news.hidden = false; else show();
};

// One look at a time, and one in a second: looks count against the rate of whoever looks. What happens meanwhile is one more.
let looking = false, again = false;
const look = async () => {
  if (looking) { again = true; return; }
  looking = true;
  try { await renew(); say("live"); } catch { say("this page could not be renewed; reload it"); }
  await new Promise((done) => setTimeout(done, 1000));
  looking = false;
  if (again) { again = false; look(); }
};

const live = () => {
  const source = main() && main().dataset.stream;
  if (!source || !window.EventSource) return;
  place = source.replace(/\/live$/, "") || "/";
  const stream = new EventSource(source);
  // What changed before the stream began, or while it was lost, is seen by looking.
  stream.onopen = look;
  stream.onmessage = look;
  stream.onerror = () => say(stream.readyState === EventSource.CLOSED ? "not live any more; reload the page" : "the connection is lost; trying again");
  window.addEventListener("pagehide", () => stream.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.replace(place); });
};

// A sign-in link keeps its token behind the `#`: browsers do not send that part. It goes into a form, and out of the address.
const signIn = () => {
  const form = document.querySelector("form[data-sign-in]");
  if (!form || location.hash.length < 2) return;
  const given = new URLSearchParams(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  for (const name of ["token", "to"]) form.elements[name].value = given.get(name) || "";
  if (form.elements.token.value) form.submit();
};

// A link from elsewhere comes without our cookie; one step from our own page brings it. Once, so that nothing goes in circles.
const goOn = () => {
  const link = document.querySelector("a[data-go-on]");
  if (!link || sessionStorage.getItem("went") === link.href) return;
  sessionStorage.setItem("went", link.href);
  location.replace(link.href);
};

document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; }, 0);
});
document.addEventListener("click", (event) => { if (event.target.closest("[data-show]")) show(); });

times(document);
count();
setInterval(count, 1000);
signIn();
goOn();
live();
