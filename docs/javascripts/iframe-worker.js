// Browsers start no Worker from a page opened from disk. The search runs in a hidden frame there instead.
// Material for MkDocs looks for the name IFrameWorker and for a script element inside the frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class IFrameWorker extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inner = this.frame.contentWindow
      const page = inner.document
      page.open()
      page.write("<!doctype html><html><head></head><body></body></html>")
      page.close()
      const load = source =>
        new Promise((resolve, reject) => {
          const script = page.createElement("script")
          script.src = source
          script.onload = resolve
          script.onerror = reject
          page.body.appendChild(script)
        })
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inner.importScripts = (...sources) => sources.reduce((done, source) => done.then(() => load(source)), Promise.resolve())
      load(new URL(url, location.href).href).then(() => {
        this.ready = true
        this.waiting.splice(0).forEach(data => this.deliver(data))
      })
    }

    postMessage(data) {
      if (this.ready) this.deliver(data)
      else this.waiting.push(data)
    }

    deliver(data) {
      const inner = this.frame.contentWindow
      inner.dispatchEvent(new inner.MessageEvent("message", { data }))
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
