import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { readdirSync } from "node:fs"
import process from "node:process"
import { HsmIoctl, type HsmIoctlName } from "../../../src/domain/abi/HsmIoctl.ts"
import { Errno } from "../../../src/domain/Errno.ts"
import * as Acrn from "../../../src/layers/Acrn.ts"
import { meaningOf, meaningOfOpen } from "../../../src/layers/acrn/meanings.ts"

const build = (options: Acrn.AcrnOptions) => Effect.flip(Effect.scoped(Layer.build(Acrn.layerWith(options))))

describe("Acrn.layerWith", () => {
  it.effect("refuses options that cannot be, before anything is loaded", () =>
    Effect.gen(function*() {
      const bad: ReadonlyArray<readonly [string, Acrn.AcrnOptions]> = [
        ["names", { names: [""] }],
        ["names", { names: ["a name of sixteen"] }],
        ["names", { names: ["same", "same"] }],
        ["processors", { processors: [] }],
        ["processors", { processors: [64] }],
        ["processors", { processors: [-1] }],
        ["processors", { processors: [1, 1] }],
        ["processors", { processors: Array.from({ length: 17 }, (_, i) => i) }],
        ["vmFlags", { vmFlags: -1n }],
        ["vmFlags", { vmFlags: 1n << 64n }],
        ["maxRamBytes", { maxRamBytes: 4095 }],
        ["maxRamBytes", { maxRamBytes: 2 ** 35 }],
        ["mmio", { mmio: [{ address: 1, bytes: 4096 }] }],
        ["mmio", { mmio: [{ address: 4096, bytes: 1 }] }],
        ["mmio", { mmio: [{ address: 2 ** 52 - 4096, bytes: 8192 }] }]
      ]
      for (const [option, options] of bad) {
        const { message, reason } = yield* build(options)
        assert.strictEqual(reason._tag, "BadOption", message)
        assert.include(message, `option ${option} is`)
      }
    }))

  if (process.platform === "linux" && process.arch === "x64") {
    it.effect("a device that is not there, or is none, names its path and what to do", () =>
      Effect.gen(function*() {
        const absent = yield* build({ device: "/dev/no_such_hsm" })
        assert.deepStrictEqual(absent.reason, {
          _tag: "NoDevice",
          path: "/dev/no_such_hsm",
          errno: Errno.ENOENT,
          meaning: meaningOfOpen(Errno.ENOENT)
        })
        assert.include(absent.message, "upcall doctor")
      }))

    it.live("the layer's thread, files and hold on the process are gone with it", () =>
      Effect.gen(function*() {
        const held = () => ({
          files: readdirSync("/proc/self/fd").length,
          threads: readdirSync("/proc/self/task").length,
          listeners: process.listenerCount("exit")
        })
        const use = Effect.scoped(Effect.as(Layer.build(Acrn.layerWith({ device: "/dev/null" })), undefined))
        // What koffi and the first thread of a process leave behind is not the layer's.
        yield* use
        const before = held()
        yield* use
        assert.deepStrictEqual(held(), before)
      }))
  } else {
    it.effect("says where it can run", () =>
      Effect.map(build({}), ({ reason }) => assert.strictEqual(reason._tag, "WrongPlatform")))
  }
})

describe("what the driver means", () => {
  it("every request and every error has a meaning", () => {
    for (const name of Object.keys(HsmIoctl) as Array<HsmIoctlName>) {
      for (const errno of [...Object.values(Errno), 12345]) assert.isAbove(meaningOf(name, errno).length, 20)
    }
    for (const errno of [...Object.values(Errno), 12345]) assert.isAbove(meaningOfOpen(errno).length, 20)
  })

  it("a request's own meaning goes before the general one", () => {
    assert.notStrictEqual(meaningOf("CreateVm", Errno.EINVAL), meaningOf("PauseVm", Errno.EINVAL))
    assert.strictEqual(meaningOf("PauseVm", Errno.EFAULT), meaningOf("StartVm", Errno.EFAULT))
  })
})
