// Keeps the page, so that it opens without a connection; a new page, by its version, takes the old one's place.
// Other pages may lie on the same site: each keeps its own.
const own = `ugatit-${self.registration.scope}-`, version = own + VERSION, files = FILES;

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(version).then((cache) => cache.addAll(files)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = async () => Promise.all(
    (await caches.keys()).filter((name) => name.startsWith(own) && name !== version).map((name) => caches.delete(name)),
  );
  event.waitUntil(old().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  event.respondWith(caches.match(event.request, { cacheName: version }).then((kept) => kept ?? fetch(event.request)));
});
