// src/fastpixel/js/kpix.js in a page made of plain objects: what is sent, by which way, and that nothing else happens.
// Run by test_js.py, or: node --test tests/js/kpix.test.mjs

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import vm from 'node:vm';

const SOURCE = readFileSync(new URL('../../src/fastpixel/js/kpix.js', import.meta.url), 'utf8');
const EVENTS = 'https://t.example.com/api/v2/events/post_event';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

// What a test sees of a page: `sent` has {by, url, text} of each event.
function page(changes = {}, sid = 'ds-1') {
  const sent = [];
  const stored = new Map();
  const window = {
    location: { href: 'https://shop.example.com/a?b=c', origin: 'https://shop.example.com' },
    document: {
      currentScript: { src: 'https://t.example.com/t/callbacks.js?sid=' + sid },
      referrer: 'https://search.example.com/',
      title: 'Shop',
    },
    navigator: { sendBeacon: (url, text) => sent.push({ by: 'beacon', url, text }) > 0 },
    localStorage: { getItem: (name) => stored.get(name) || null, setItem: (name, value) => stored.set(name, value) },
    crypto: { randomUUID: () => crypto.randomUUID() },
    btoa,
    URL,
    ...changes,
  };
  window.window = window;
  const context = vm.createContext(window);
  const load = (id = sid) => vm.runInContext(SOURCE.replace('"__SID__"', JSON.stringify(id)), context);
  load();
  return { window, sent, stored, load, events: () => sent.map((one) => JSON.parse(one.text)) };
}

const throwing = () => {
  throw new Error('broken');
};

test('loading it stores and sends nothing, and leaves one global', () => {
  const before = Object.keys(page().window).filter((name) => name !== 'kpix');
  const { window, sent, stored } = page();
  assert.deepEqual(Object.keys(window).filter((name) => !before.includes(name)), ['kpix']);
  assert.equal(sent.length, 0);
  assert.equal(stored.size, 0);
});

test('track sends one event of the documented form', () => {
  const { window, sent, events } = page();
  window.kpix('track', 'pv');
  assert.equal(sent.length, 1);
  assert.deepEqual({ by: sent[0].by, url: sent[0].url }, { by: 'beacon', url: EVENTS });
  const { event_id, anonymous_id, time_utc, ...rest } = events()[0];
  assert.match(event_id, UUID);
  assert.match(anonymous_id, UUID);
  assert.ok(Math.abs(Date.parse(time_utc) - Date.now()) < 60000);
  assert.deepEqual(rest, {
    data_source_id: 'ds-1',
    type: 'pv',
    user_id: {},
    event_data: {
      url: 'https://shop.example.com/a?b=c',
      referrer: 'https://search.example.com/',
      title: 'Shop',
      platform: 'WEB',
    },
  });
});

test('additional parameters have their places, and the rest is event_data', () => {
  const { window, events } = page();
  window.kpix('track', 'conversion', {
    user_info: { internal_id: '50b5337b', email: 'md5:00de' },
    labels: ['section=listing_view', 'user_segment=new_users'],
    conversion_name: 'engagement',
    amount: 5,
  });
  const [event] = events();
  assert.deepEqual(event.user_id, { internal_id: '50b5337b', email: 'md5:00de' });
  assert.deepEqual(event.labels, ['section=listing_view', 'user_segment=new_users']);
  assert.equal(event.event_data.conversion_name, 'engagement');
  assert.equal(event.event_data.amount, 5);
  assert.deepEqual(Object.keys(event.event_data).filter((name) => ['user_info', 'labels'].includes(name)), []);
});

test('user_info is an event, and its members that are not empty are remembered', () => {
  const { window, events } = page();
  window.kpix('user_info', { internal_id: '', email: 'md5:00de', phone: null });
  window.kpix('track', 'pv', { user_info: { internal_id: 'i' } });
  const [first, second] = events();
  assert.equal(first.type, 'user_info');
  assert.deepEqual(first.user_id, { internal_id: '', email: 'md5:00de', phone: null });
  assert.deepEqual(second.user_id, { email: 'md5:00de', internal_id: 'i' });
});

test('an event object is sent as it is, with id, time and source filled in', () => {
  const { window, events } = page();
  window.kpix({ type: 'x', event_id: 'e', data_source_id: 7, time: 5, event_data: { a: [1] } });
  window.kpix({ type: 'y' });
  const [first, second] = events();
  assert.match(first.anonymous_id, UUID);
  delete first.anonymous_id;
  assert.deepEqual(first, { type: 'x', event_id: 'e', data_source_id: 7, time: 5, event_data: { a: [1] } });
  assert.equal(second.data_source_id, 'ds-1');
  assert.match(second.event_id, UUID);
  assert.ok(second.time_utc);
});

test('a visitor keeps one id, on later pages too', () => {
  const first = page();
  first.window.kpix('track', 'pv');
  first.window.kpix('track', 'pv');
  const [a, b] = first.events();
  assert.equal(a.anonymous_id, b.anonymous_id);
  assert.notEqual(a.event_id, b.event_id);
  const next = page({ localStorage: first.window.localStorage });
  next.window.kpix('track', 'pv');
  assert.equal(next.events()[0].anonymous_id, a.anonymous_id);
});

test('without storage and crypto there are ids all the same', () => {
  const { window, events } = page({ localStorage: undefined, crypto: undefined });
  window.kpix('track', 'pv');
  window.kpix('track', 'pv');
  assert.match(events()[0].event_id, UUID);
  assert.equal(events()[0].anonymous_id, events()[1].anonymous_id);
  const plain = page({ crypto: { getRandomValues: (bytes) => crypto.getRandomValues(bytes) } });
  plain.window.kpix('track', 'pv');
  assert.match(plain.events()[0].event_id, UUID);
});

test('calls that a stub kept are made, in order', () => {
  const kpix = function () {
    (kpix.q = kpix.q || []).push(arguments);
  };
  kpix('track', 'pv');
  kpix('user_info', { internal_id: 'i' });
  kpix('track', 'conversion', { conversion_name: 'c' });
  const { events, window } = page({ kpix });
  assert.deepEqual(events().map((event) => event.type), ['pv', 'user_info', 'conversion']);
  assert.equal(events()[2].user_id.internal_id, 'i');
  assert.notEqual(window.kpix, kpix);
});

test('a second script tag of the same source changes nothing, one of another takes over', () => {
  const { window, load, events } = page();
  const first = window.kpix;
  load();
  assert.equal(window.kpix, first);
  load('ds-2');
  window.kpix('track', 'pv');
  assert.equal(events()[0].data_source_id, 'ds-2');
});

test('the ways in their order', async () => {
  const asked = [];
  const fetch = (url, options) => {
    asked.push({ url, options });
    return Promise.resolve();
  };
  const refused = page({ navigator: { sendBeacon: () => false }, fetch });
  refused.window.kpix('track', 'pv');
  assert.equal(asked[0].url, EVENTS);
  const { body, ...options } = asked[0].options;
  assert.deepEqual({ ...options }, { method: 'POST', mode: 'no-cors', credentials: 'omit', keepalive: true });
  assert.equal(typeof body, 'string');

  const requests = [];
  class XMLHttpRequest {
    open(...given) {
      this.opened = given;
    }
    setRequestHeader(...given) {
      this.header = given;
    }
    send(text) {
      this.text = text;
      requests.push(this);
    }
  }
  const images = [];
  class Image {
    constructor() {
      images.push(this);
    }
  }
  const old = page({ navigator: {}, XMLHttpRequest, Image });
  old.window.kpix('track', 'pv', { word: 'é€😀' });
  assert.deepEqual(requests[0].opened, ['POST', EVENTS]);
  assert.deepEqual(requests[0].header, ['Content-Type', 'text/plain;charset=UTF-8']);
  requests[0].onerror();
  const image = new URL(images[0].src);
  assert.equal(image.origin + image.pathname, 'https://t.example.com/t/p.gif');
  assert.equal(image.searchParams.get('sid'), 'ds-1');
  assert.match(image.searchParams.get('e'), /^[A-Za-z0-9_-]+$/);
  assert.equal(Buffer.from(image.searchParams.get('e'), 'base64url').toString(), requests[0].text);
  assert.equal(JSON.parse(requests[0].text).event_data.word, 'é€😀');

  const failing = page({ navigator: {}, fetch: () => Promise.reject(new Error('blocked')), XMLHttpRequest });
  failing.window.kpix('track', 'pv');
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(requests.length, 2);
});

test('mappings call the other trackers after our event', () => {
  const calls = [];
  const navigator = { sendBeacon: () => calls.push(['ours']) > 0 };
  const { window } = page({
    navigator,
    fbq: (...given) => calls.push(['fbq', ...given]),
    ga: (...given) => calls.push(['ga', ...given]),
  });
  window.kpix('track', 'pv', { conversion_name: 'engagement' });
  window.kpix('map', { conversion_name: { engagement: { fb: 'Lead' } } });
  window.kpix('map', { conversion_name: { engagement: { google: ['Videos', 'play', 'Fall Campaign'] } } });
  window.kpix('map', { conversion_name: { text: { google: 'Videos' } } });
  window.kpix('track', 'pv', { conversion_name: 'engagement' });
  window.kpix('track', 'pv', { conversion_name: 'text' });
  window.kpix('track', 'pv', { conversion_name: 'other' });
  assert.deepEqual(calls, [
    ['ours'],
    ['ours'],
    ['fbq', 'track', 'Lead'],
    ['ga', 'send', 'event', 'Videos', 'play', 'Fall Campaign'],
    ['ours'],
    ['ga', 'send', 'event', 'Videos'],
    ['ours'],
  ]);
});

test('trackers that are missing or broken are passed over', () => {
  const calls = [];
  const { window, sent } = page({ fbq: throwing, ga: (...given) => calls.push(given) });
  window.kpix('map', { conversion_name: { a: { fb: 'Lead', google: 'Videos' }, __proto__: 5, constructor: {} } });
  window.kpix('track', 'pv', { conversion_name: 'a' });
  delete window.ga;
  window.kpix('track', 'pv', { conversion_name: 'a' });
  assert.equal(calls.length, 1);
  assert.equal(sent.length, 2);
});

test('nothing throws into the page', () => {
  const cycle = {};
  cycle.cycle = cycle;
  const getter = Object.defineProperty({}, 'x', { get: throwing, enumerable: true });
  const broken = {
    navigator: { sendBeacon: throwing },
    fetch: throwing,
    XMLHttpRequest: throwing,
    Image: throwing,
    localStorage: { getItem: throwing, setItem: throwing },
  };
  for (const changes of [{}, broken, { navigator: undefined, document: { title: 'no script' } }]) {
    const { window } = page(changes);
    for (const given of [undefined, null, 5, 'x', [], {}, cycle, getter, '\ud800', () => 1, Symbol('s')]) {
      window.kpix(given);
      window.kpix('track', given);
      for (const command of ['track', 'user_info', 'map', 'unknown']) {
        window.kpix(command, given, given);
        window.kpix(command, { conversion_name: given }, { user_info: given, conversion_name: given });
      }
    }
  }
});
