// The browser's side of the kSense dialect. GET /t/callbacks.js?sid=... hands it out with the data source's id as
// SID.
//
//   kpix('track', name, {user_info, labels, conversion_name, ...})   one event
//   kpix('user_info', {internal_id, email, phone, ...})              one event, remembered for later ones of the page
//   kpix('map', {conversion_name: {NAME: {fb, google}}})             local: such an event calls fbq and ga too
//   kpix({type, ...})                                                an event as it is; id, time and source filled in
//
// Rules: it never throws into the page, evaluates no text and adds no inline code (so a strict Content-Security-Policy
// is no obstacle), and its only global is `kpix`. Calls that a stub put in `kpix.q` are made once it is loaded. Loading
// it stores nothing, here or there; the first event stores an id in localStorage. E-mail and phone are hashed by the
// server. ES2017, no dependency.
(function (window, document) {
  'use strict';

  const SID = "__SID__";
  const stub = window.kpix;
  if (stub && stub.sid === SID) return; // the page loads it twice

  const ORIGIN = attempt(() => new URL(document.currentScript.src).origin) || window.location.origin;
  const EVENTS = ORIGIN + '/api/v2/events/post_event';
  const IMAGE = ORIGIN + '/t/p.gif?sid=' + encodeURIComponent(SID) + '&e=';
  const STORED_AS = 'kpix_id';
  const known = Object.create(null); // of the person, by kpix('user_info')
  const mappings = Object.create(null); // conversion_name -> {fb, google}
  const images = []; // on their way: a browser may forget an image that nobody holds
  let visitor = '';

  // What a browser may not have, or a page may have broken: undefined instead of an exception.
  function attempt(does) {
    try {
      return does();
    } catch (error) {
      return undefined;
    }
  }

  // -- ids

  function uuid() {
    const crypto = window.crypto || {};
    if (crypto.randomUUID) return crypto.randomUUID();
    const bytes = new Uint8Array(16).map(() => Math.random() * 256);
    if (crypto.getRandomValues) crypto.getRandomValues(bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join('');
    return hex.replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  }

  function anonymousId() {
    visitor = visitor || attempt(() => window.localStorage.getItem(STORED_AS)) || uuid();
    attempt(() => window.localStorage.setItem(STORED_AS, visitor));
    return visitor;
  }

  // -- events

  function filled(event) {
    const start = { data_source_id: SID, event_id: uuid(), anonymous_id: anonymousId() };
    if (!('time' in event)) start.time_utc = new Date().toISOString();
    return Object.assign(start, event);
  }

  function tracked(name, given) {
    const data = { url: window.location.href, referrer: document.referrer, title: document.title, platform: 'WEB' };
    Object.assign(data, given);
    delete data.user_info;
    delete data.labels;
    return { type: name, user_id: Object.assign({}, known, given.user_info), labels: given.labels, event_data: data };
  }

  function introduced(person) {
    Object.keys(person).forEach((name) => {
      if (person[name] != null && person[name] !== '') known[name] = person[name];
    });
    return Object.assign(tracked('user_info', {}), { user_id: person });
  }

  // -- handing over

  // To our own origin, as text: a string is sent as text/plain, which needs no preflight.
  function send(event) {
    const text = JSON.stringify(event);
    return byBeacon(text) || byFetch(text) || byRequest(text) || byImage(text);
  }

  function byBeacon(text) {
    return attempt(() => window.navigator.sendBeacon(EVENTS, text));
  }

  function byFetch(text) {
    const options = { method: 'POST', mode: 'no-cors', credentials: 'omit', keepalive: true, body: text };
    return attempt(() => window.fetch(EVENTS, options).catch(() => byRequest(text) || byImage(text)));
  }

  function byRequest(text) {
    return attempt(() => {
      const request = new window.XMLHttpRequest();
      request.open('POST', EVENTS);
      request.setRequestHeader('Content-Type', 'text/plain;charset=UTF-8');
      request.onerror = () => byImage(text);
      request.send(text);
      return true;
    });
  }

  function byImage(text) {
    return attempt(() => {
      const image = new window.Image();
      image.onload = image.onerror = () => images.splice(images.indexOf(image), 1);
      images.push(image);
      image.src = IMAGE + base64url(text);
      return true;
    });
  }

  function base64url(text) {
    const octets = encodeURIComponent(text).replace(/%(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
    return window.btoa(octets).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  }

  // -- mappings: the page's other trackers, called after our event was handed over

  function mapped(event) {
    const name = event.conversion_name || (event.event_data && event.event_data.conversion_name);
    const to = Object(mappings[name]);
    if (to.fb) attempt(() => window.fbq('track', to.fb));
    if (to.google) attempt(() => window.ga.apply(null, ['send', 'event'].concat(to.google)));
  }

  function map(given) {
    const names = Object(given.conversion_name);
    Object.keys(names).forEach((name) => {
      mappings[name] = Object.assign({}, mappings[name], names[name]);
    });
  }

  // -- the call

  function called(command, first, second) {
    if (command === 'map') return map(Object(first));
    const event =
      command === 'track' ? tracked(first, Object(second)) : command === 'user_info' ? introduced(Object(first)) : command;
    if (event && typeof event === 'object') {
      send(filled(event));
      mapped(event);
    }
  }

  function kpix(command, first, second) {
    attempt(() => called(command, first, second));
  }

  kpix.sid = SID;
  kpix.q = [];
  window.kpix = kpix;
  attempt(() => Array.from(stub.q).forEach((call) => kpix(call[0], call[1], call[2])));
})(window, document);
