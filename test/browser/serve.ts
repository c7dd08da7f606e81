/** A server for the page on this machine only: `/isolated/` with the headers that make memory shareable, `/plain/`. */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const repository = new URL("../../", import.meta.url)

// The empty icon saves a request for one.
const document = `<!doctype html>
<title>Upcall</title>
<link rel="icon" href="data:,">
<script type="module" src="page.js"></script>`

export const serve = (script: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const files: Record<string, readonly [type: string, body: string | Uint8Array]> = {
          "": ["text/html", document],
          "page.js": ["text/javascript", script],
          "hello.bin": ["application/octet-stream", readFileSync(new URL("guests/hello/hello.bin", repository))],
          "v86.wasm": ["application/wasm", readFileSync(new URL(import.meta.resolve("v86/build/v86.wasm")))]
        }
        const server = createServer((request, response) => {
          const [, folder = "", name = ""] = request.url?.split("/") ?? []
          const file = files[name]
          if (file === undefined || (folder !== "isolated" && folder !== "plain")) {
            response.writeHead(404).end()
            return
          }
          response.writeHead(200, {
            "Content-Type": file[0],
            ...folder === "isolated"
              ? { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" }
              : {}
          }).end(file[1])
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
    ),
    (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  )
