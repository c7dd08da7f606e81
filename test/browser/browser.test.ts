/**
 * domain, services, Simulated, Emulated, devices, images and testing in a browser: they bundle without anything of
 * Node.js, and run a guest in a page, with and without memory that threads can share.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { type Browser, chromium } from "playwright-core"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { bundlePage } from "./bundle.ts"
import { runHelloOn } from "./hello.ts"
import type { PageReport } from "./page.ts"
import { serve } from "./serve.ts"

const executable = process.env["CHROMIUM"] ?? "/usr/bin/chromium"
const isThere = existsSync(executable)
const reason = isThere ? "" : ` (skipped: there is no Chromium at ${executable}; set CHROMIUM to its path)`

const HELLO = "Hello from a guest on Upcall\r\ntype a byte: got: u\r\nticks: 3\r\nmmio: 0x600dcafe\r\n"

describe("in a browser", () => {
  it.effect("the library bundles with no import left and no warning", () =>
    Effect.gen(function*() {
      const { code, imports, warnings } = yield* Effect.promise(bundlePage)
      assert.deepStrictEqual(imports, [])
      assert.deepStrictEqual(warnings, [])
      // Not as an import either that a bundler does not see.
      assert.notMatch(code, /(import|from|require)\s*\(?\s*["'`]node:/)
      // What needs the host's own modules asks whether there are any.
      assert.deepStrictEqual(
        [...new Set(Array.from(code.matchAll(/["'`]node:[a-z/_]+["'`]/g), ([name]) => name.slice(1, -1)))].toSorted(),
        ["node:async_hooks", "node:fs/promises"]
      )
    }))

  it.live.skipIf(!isThere)(`guests/hello runs in a page${reason}`, () =>
    Effect.gen(function*() {
      const { code } = yield* Effect.promise(bundlePage)
      const address = yield* serve(code)
      const browser = yield* launch
      const isolated = yield* visit(browser, `${address}/isolated/`)
      const plain = yield* visit(browser, `${address}/plain/`)
      for (const [folder, reports] of [["isolated", isolated], ["plain", plain]] as const) {
        for (const report of [reports.simulated, reports.emulated]) {
          assert.strictEqual(report.text, HELLO)
          assert.deepStrictEqual(report.end, { _tag: "Exited", status: 0 })
          assert.strictEqual(report.isIsolated, folder === "isolated")
        }
        assert.include(reports.withoutBytes, "there is no file system here")
      }

      // A run depends on nothing of the machine that it runs on.
      const image = readFileSync(new URL("../../guests/hello/hello.bin", import.meta.url))
      const simulated = yield* Effect.promise(() => runHelloOn(image, Simulated.layer))
      const emulated = yield* Effect.promise(() => runHelloOn(image, Emulated.layerWith({ clock: "Virtual" })))
      assert.deepStrictEqual([isolated.simulated.hash, plain.simulated.hash], [simulated.hash, simulated.hash])
      assert.deepStrictEqual([isolated.emulated.hash, plain.emulated.hash], [emulated.hash, emulated.hash])
    }))
})

const launch = Effect.acquireRelease(
  Effect.promise(() =>
    chromium.launch({
      executablePath: executable,
      headless: true,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync"
      ]
    })
  ),
  (browser) => Effect.promise(() => browser.close())
)

interface Page {
  readonly runHello: (hypervisor: "Emulated" | "Simulated") => Promise<PageReport>
  readonly runWithoutBytes: () => Promise<string>
}

const visit = (browser: Browser, address: string) =>
  Effect.promise(async () => {
    const page = await browser.newPage()
    const problems: Array<string> = []
    page.on("pageerror", (error) => problems.push(error.message))
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
    await page.goto(address)
    await page.waitForFunction(() => "runHello" in globalThis)
    const reports = {
      simulated: await page.evaluate(() => (globalThis as unknown as Page).runHello("Simulated")),
      emulated: await page.evaluate(() => (globalThis as unknown as Page).runHello("Emulated")),
      withoutBytes: await page.evaluate(() => (globalThis as unknown as Page).runWithoutBytes())
    }
    await page.close()
    assert.deepStrictEqual(problems, [])
    return reports
  })
