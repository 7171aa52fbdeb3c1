// SPDX-License-Identifier: Apache-2.0
// Everything works without this file but what is live: theme switch, copying, and the list that follows events.
(function () {
  "use strict";
  var root = document.documentElement;
  var THEMES = ["", "light", "dark"];

  function kept() {
    try { return localStorage.getItem("hawser-theme") || ""; } catch (_) { return ""; }
  }
  function dress(theme) {
    if (theme) { root.dataset.theme = theme; } else { delete root.dataset.theme; }
  }
  dress(THEMES.indexOf(kept()) > 0 ? kept() : "");  // before anything is painted

  function byId(id) { return document.getElementById(id); }

  function themeSwitch() {
    var button = byId("theme");
    function show() {
      var theme = root.dataset.theme || "";
      button.textContent = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" }[theme];
    }
    button.hidden = false;
    show();
    button.addEventListener("click", function () {
      var next = THEMES[(THEMES.indexOf(root.dataset.theme || "") + 1) % THEMES.length];
      dress(next);
      show();
      try {
        if (next) { localStorage.setItem("hawser-theme", next); } else { localStorage.removeItem("hawser-theme"); }
      } catch (_) { /* the choice lasts as long as the page */ }
    });
  }

  function copying() {
    if (!navigator.clipboard) { return; }
    document.querySelectorAll("[data-copy]").forEach(function (place) {
      var text = place.textContent;
      var button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy " + text.slice(0, 80));
      button.addEventListener("click", function () {
        navigator.clipboard.writeText(text).then(function () {
          button.textContent = "Copied";
          setTimeout(function () { button.textContent = "Copy"; }, 2000);
        });
      });
      place.append(button);
    });
  }

  // Addresses of filters are short: fields without a value are not sent.
  function shortAddresses() {
    document.querySelectorAll("form.filters").forEach(function (form) {
      form.addEventListener("submit", function () {
        Array.prototype.forEach.call(form.elements, function (field) {
          if (field.name && !field.value) {
            field.disabled = true;
            setTimeout(function () { field.disabled = false; }, 0);
          }
        });
      });
    });
  }

  // Times: as words.py says them, by the hub's clock.
  var ahead = 0;
  function ago(seconds) {
    if (seconds < 5) { return "just now"; }
    var steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [5184000, 86400, "d"], [Infinity, 2592000, "months"]];
    var step = steps.find(function (item) { return seconds < item[0]; });
    return Math.floor(seconds / step[1]) + " " + step[2] + " ago";
  }
  function tellTimes(place) {
    var at = Date.now() / 1000 + ahead;
    place.querySelectorAll("time[title]").forEach(function (item) {
      var text = ago(Math.max(0, at - Date.parse(item.dateTime) / 1000));
      if (item.textContent !== text) { item.textContent = text; }
    });
  }

  // The list: rows keep their places while somebody points at them or works in them.
  function busy(place) {
    return place.contains(document.activeElement) || (matchMedia("(hover: hover)").matches && place.matches(":hover"));
  }
  function row(table, id) { return table.querySelector('tr[data-id="' + CSS.escape(id) + '"]'); }

  function putRow(old, fresh) {
    var before = old.dataset.status;
    var inside = old.contains(document.activeElement);
    if (!inside) { old.innerHTML = fresh.innerHTML; }
    else {
      Array.prototype.forEach.call(old.cells, function (cell, index) {
        if (!cell.contains(document.activeElement)) { cell.innerHTML = fresh.cells[index].innerHTML; }
      });
    }
    old.dataset.status = fresh.dataset.status;
    old.classList.remove("gone");
    if (before !== fresh.dataset.status) { flash(old); }
  }
  function flash(item) {
    item.classList.remove("changed");
    void item.offsetWidth;
    item.classList.add("changed");
  }

  function merge(live, fresh) {
    var table = live.querySelector("table.fleet"), other = fresh.querySelector("table.fleet");
    if (!table || !other) {
      // A button must not change its place under a pointer.
      var working = live.contains(document.activeElement) || (live.querySelector("form") && busy(live));
      live.toggleAttribute("data-waiting", working);
      if (!working) { live.innerHTML = fresh.innerHTML; }
      return;
    }
    [".counts", ".found", ".paging"].forEach(function (name) {
      var place = live.querySelector(name), now = fresh.querySelector(name);
      if (place.innerHTML !== now.innerHTML && !place.contains(document.activeElement)) { place.innerHTML = now.innerHTML; }
    });
    var quiet = !busy(table), body = table.tBodies[0], waiting = false;
    Array.prototype.forEach.call(other.tBodies[0].rows, function (now) {
      var old = row(table, now.dataset.id);
      if (old) { putRow(old, now); } else { waiting = true; }
    });
    Array.prototype.slice.call(body.rows).forEach(function (old) {
      if (row(other, old.dataset.id)) { return; }
      if (quiet) { old.remove(); } else { old.classList.add("gone"); waiting = true; }
    });
    if (quiet) {
      Array.prototype.forEach.call(other.tBodies[0].rows, function (now, index) {
        var old = row(table, now.dataset.id), place = body.rows[index] || null;
        if (!old) { old = document.importNode(now, true); body.insertBefore(old, place); flash(old); }
        else if (old !== place) { body.insertBefore(old, place); }
      });
      waiting = false;
    }
    live.toggleAttribute("data-waiting", waiting);
  }

  function following() {
    var follow = byId("follow");
    if (!follow || !window.EventSource) { return; }
    var live = byId("live"), lost = byId("lost"), said = byId("said");
    var source = null, timer = 0, wait = 1000, heard = [], since = null;

    function address() {
      var here = new URL(location.href);
      here.searchParams.delete("saved");
      if (!("head" in follow.dataset || "whole" in follow.dataset)) { here.searchParams.set("part", "list"); }
      return here.href;
    }
    function refresh() {
      timer = 0;
      var events = heard;
      heard = [];
      if ("reload" in follow.dataset) { location.reload(); return; }
      fetch(address(), { credentials: "same-origin", redirect: "manual" }).then(function (answer) {
        if (answer.status === 401 || answer.type === "opaqueredirect") { signedOut(); return null; }
        if (answer.status === 404 && "head" in follow.dataset) { say("This machine was deleted."); return null; }
        return answer.ok ? answer.text() : null;
      }).then(function (text) {
        if (!text) { return; }
        var page = new DOMParser().parseFromString(text, "text/html");
        ahead = page.body.dataset.at ? page.body.dataset.at - Date.now() / 1000 : ahead;
        if (live) { merge(live, page.getElementById("live")); tellTimes(live); }
        ["live-head", "live-timeline"].forEach(function (id) {
          var place = byId(id), now = page.getElementById(id);
          if (place && now && !place.contains(document.activeElement)) { place.innerHTML = now.innerHTML; }
        });
        announce(events);
      }).catch(function () { /* the stream tells whether the hub can be reached */ });
    }
    function soon(delay) { if (!timer) { timer = setTimeout(refresh, delay); } }
    function announce(events) {
      if (!said || !events.length) { return; }
      said.textContent = events.length > 3 ? events.length + " changes in the fleet." : events.map(function (event) {
        if (event.kind === "machine.status") { return event.name + " is " + event.data.to + "."; }
        if (event.kind === "machine.twin") { return "A twin of " + event.name + " is " + event.data.state + "."; }
        if (event.kind === "machine.created") { return event.name + " is new."; }
        return event.kind === "machine.deleted" ? event.name + " was deleted." : event.name + " changed.";
      }).join(" ");
    }
    function say(text) { if (lost) { lost.textContent = text; lost.hidden = false; } }
    function signedOut() {
      if (source) { source.close(); }
      source = null;
      say("Your session has ended. ");
      var link = document.createElement("a");
      link.href = location.href;
      link.textContent = "Sign in again";
      if (lost) { lost.append(link); }
    }
    function open() {
      source = new EventSource(follow.dataset.stream);
      source.onopen = function () {
        wait = 1000;
        if (since) { since = null; lost.hidden = true; soon(0); }
      };
      source.onerror = function () {
        if (!source) { return; }
        if (!since) {
          since = new Date();
          say("The live connection is lost; what you see is from " + since.toLocaleTimeString() + ". Trying again…");
        }
        if (source.readyState === EventSource.CLOSED) {
          source = null;
          setTimeout(function () {
            fetch(address(), { method: "HEAD", credentials: "same-origin", redirect: "manual" }).then(function (answer) {
              if (answer.status === 401 || answer.type === "opaqueredirect") { signedOut(); } else { open(); }
            }).catch(open);
          }, wait);
          wait = Math.min(2 * wait, 30000);
        }
      };
      ["created", "deleted", "changed", "status", "conflict", "version", "renamed", "twin"].forEach(function (kind) {
        source.addEventListener("machine." + kind, function (event) {
          heard.push(JSON.parse(event.data));
          soon(400 + Math.random() * 400);
        });
      });
    }
    open();
    addEventListener("pagehide", function () { if (source) { source.close(); } source = null; });
    addEventListener("pageshow", function (event) { if (event.persisted) { open(); soon(0); } });
    setInterval(function () { tellTimes(document); }, 5000);
    setInterval(function () { if (!document.hidden) { soon(0); } }, 60000);  // heartbeats are no events
    document.addEventListener("visibilitychange", function () { if (!document.hidden) { soon(0); } });
    if (live) {
      ["mouseout", "focusout"].forEach(function (name) {
        live.addEventListener(name, function () { if (live.hasAttribute("data-waiting")) { soon(1000); } });
      });
    }
  }

  document.addEventListener("DOMContentLoaded", function () {
    ahead = document.body.dataset.at - Date.now() / 1000;
    themeSwitch();
    copying();
    shortAddresses();
    following();
  });
})();
