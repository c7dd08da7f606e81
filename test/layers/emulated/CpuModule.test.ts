import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as CpuModule from "../../../src/layers/emulated/CpuModule.ts"
import { natural } from "../../../src/layers/emulated/WasmBinary.ts"
import * as WasmBytes from "../../../src/layers/emulated/WasmBytes.ts"
import * as WasmFile from "../../../src/layers/emulated/WasmFile.ts"
import * as WebAssemblyApi from "../../../src/layers/emulated/WebAssemblyApi.ts"
import { wasmBytes } from "./harness.ts"

const failure = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => "no failure", (cause: unknown) => (cause as Error).message)

describe("the wasm of the core", () => {
  it("is the pinned build that the package is", async () => {
    const given = wasmBytes()
    const verified = await WasmBytes.verify(given)
    assert.deepStrictEqual(new Uint8Array(verified), new Uint8Array(given))
    assert.notStrictEqual(verified.buffer, given.buffer)
  })

  it("is refused when one bit differs, with both digests named", async () => {
    const changed = Uint8Array.from(wasmBytes())
    changed[changed.length >> 1] = (changed[changed.length >> 1] ?? 0) ^ 1
    const message = await failure(CpuModule.compile(changed))
    assert.include(message, WasmBytes.V86_SHA256)
    assert.match(message, /have SHA-256 [0-9a-f]{64}/)
    // SHA-256 of nothing, from FIPS 180.
    assert.include(
      await failure(CpuModule.compile(new Uint8Array())),
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
  })

  it("is refused by an engine without JSPI, by name", async () => {
    const { Instance, Module } = WebAssemblyApi.api()
    vi.stubGlobal("WebAssembly", { Instance, Module })
    assert.match(await failure(CpuModule.compile(wasmBytes())), /no JavaScript Promise Integration .* use Node.js 24/)
    vi.stubGlobal("WebAssembly", undefined)
    assert.match(await failure(CpuModule.compile(wasmBytes())), /has no WebAssembly/)
    vi.unstubAllGlobals()
  })

  it("cannot be verified without Web Crypto", async () => {
    vi.stubGlobal("crypto", undefined)
    assert.match(await failure(WasmBytes.verify(wasmBytes())), /has no Web Crypto/)
    vi.unstubAllGlobals()
  })
})

describe("the installed core", () => {
  it("is read without Node.js imports, compiled once, and asked for again after a failure", async () => {
    vi.stubGlobal("process", {})
    assert.match(await failure(CpuModule.installed()), /cannot be read: there is no file system here; .*give the bytes/)
    vi.unstubAllGlobals()
    const found = await CpuModule.installed()
    assert.strictEqual(await CpuModule.installed(), found)
    vi.stubGlobal("process", {})
    assert.strictEqual(await CpuModule.installed(), found)
    vi.unstubAllGlobals()
  })

  it("is not found when its file cannot be read", async () => {
    vi.stubGlobal("process", {
      getBuiltinModule: () => ({ readFile: () => Promise.reject(new Error("ENOENT: no such file")) })
    })
    assert.match(await failure(WasmFile.read()), /cannot be read: ENOENT: no such file; install the package/)
    vi.unstubAllGlobals()
  })
})

describe("natural", () => {
  it.effect.prop(
    "is LEB128: seven bits a byte, lowest first, the last without its high bit",
    [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 32 - 1 }))],
    ([value]) =>
      Effect.sync(() => {
        const bytes = natural(value)
        assert.strictEqual(bytes.reduceRight((high, byte) => high * 128 + byte % 128, 0), value)
        assert.isTrue(bytes.slice(0, -1).every((byte) => byte >= 128))
        assert.isBelow(bytes.at(-1) ?? 128, 128)
        assert.isTrue(bytes.length === 1 || bytes.at(-1) !== 0)
      })
  )
})
