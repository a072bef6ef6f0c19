"""One visit of a page in a browser, and what the collector has of it.

What the page throws, and what Chromium reports as an error, is in `faults`; a test that expects some empties it. What
it asked before other requests (CORS preflights) is in `preflights`: (method asked for, path). What it posted to the
collector and was answered is in `posts`: (path, text, status).
"""

from service import await_true, export

IMAGE = """
address => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve([image.naturalWidth, image.naturalHeight]);
  image.onerror = () => reject(new Error("the image did not load"));
  image.src = address;
})"""


class Visit:
    """`key` is the write key of this visit alone, by which its records are found."""

    def __init__(self, browser, site, collector, key):
        self.site, self.collector, self.key = site, collector, key
        self.faults, self.preflights, self.posts = [], [], []
        self.context = browser.new_context(ignore_https_errors=True)  # of a certificate that a test made
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("response", self._answered)
        self._watch_network()
        self._before = self._stored()

    def _said(self, message):
        if message.type == "error":
            self.faults.append(message.text)

    def _watch_network(self):
        """Playwright hides preflights; the browser's own protocol shows them."""
        session = self.context.new_cdp_session(self.page)
        session.on("Network.requestWillBeSent", self._sent)
        session.send("Network.enable")

    def _sent(self, event):
        if event["initiator"]["type"] == "preflight":
            headers = {name.lower(): value for name, value in event["request"]["headers"].items()}
            self.preflights.append((headers["access-control-request-method"], self._path(event["request"]["url"])))

    def _answered(self, response):
        request = response.request
        if request.method == "POST" and request.url.startswith(self.collector.url):
            self.posts.append((self._path(request.url), request.post_data, response.status))

    def _path(self, address):
        return address.removeprefix(self.collector.url).partition("?")[0]

    def load_image(self, address):
        """(width, height) of an image that the page adds to itself."""
        return self.run(IMAGE, address)

    def open(self, body="", **where):
        """Goes to a page with this body, at `path` and `host` if they are given."""
        self.page.goto(self.site.page(body, **where))

    def run(self, script, value=None):
        return self.page.evaluate(script, value)

    def records(self, wait_for=0):
        """What is stored of the visit, in order; with a number: as soon as so many events came since its start."""
        if wait_for:
            self._wait(lambda: self._stored() - self._before >= wait_for, f"{wait_for} events more are stored")
        return [record for record in export(self.collector.data_dir) if record["writeKey"] == self.key]

    def answered_posts(self, count):
        """The first so many posts, as soon as they are answered."""
        self._wait(lambda: len(self.posts) >= count, f"{count} posts are answered")
        return self.posts[:count]

    def _wait(self, condition, what):
        """Playwright tells of what happened in the browser only while one of its methods runs."""
        await_true(lambda: self.page.wait_for_timeout(10) or condition(), what)

    def _stored(self):
        values = self.collector.metrics()
        return sum(value for name, value in values.items() if name.startswith("fastpixel_events_stored_total"))
