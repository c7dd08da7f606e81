/** Images of both formats, planned, loaded and run. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, type Scope } from "effect"
import * as StandardPc from "../../../src/layers/devices/StandardPc.ts"
import * as Emulated from "../../../src/layers/Emulated.ts"
import * as Elf from "../../../src/layers/images/Elf.ts"
import * as FlatBinary from "../../../src/layers/images/FlatBinary.ts"
import * as Multiboot from "../../../src/layers/images/Multiboot.ts"
import * as Kvm from "../../../src/layers/Kvm.ts"
import * as Simulated from "../../../src/layers/Simulated.ts"
import type { Hypervisor } from "../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import type { CreatedVm } from "../../../src/services/Vm.ts"
import * as Guest from "../../support/guest.ts"
import { kvmProblem } from "../../support/kvm.ts"
import { recorder, runToEnd } from "../../support/machines.ts"
import * as Binutils from "./binutils.ts"
import { elf, ELF_BYTES, MiB, multibootHeader } from "./support.ts"

type Provided = VirtualMachine.VirtualMachine | Hypervisor | Emulated.Capabilities | Scope.Scope

const hypervisors = {
  Emulated: Emulated.layerWith({ clock: "Virtual" }),
  Simulated: Simulated.layerWith({}),
  Kvm: Kvm.layer
} as const

const on = (name: keyof typeof hypervisors) => <A, E, R>(program: Effect.Effect<A, E, R>) => {
  const hypervisor = hypervisors[name] as unknown as Layer.Layer<Provided, Emulated.EmulatedError | Kvm.KvmError>
  return program.pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(hypervisor)), { local: true })
  ) as Effect.Effect<A, E | Emulated.EmulatedError | Kvm.KvmError, Exclude<R, Provided>>
}

/** A VM whose memory is full of what an earlier guest left behind, with a console. */
const usedVm = Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 2 * MiB })
  yield* vm.memory.write(0, new Uint8Array(2 * MiB).fill(0xff))
  const console = { text: "" }
  yield* vm.attach(StandardPc.make({ uart: { onOutput: (byte) => (console.text += String.fromCharCode(byte)) } }))
  return { vm, console }
})

const asciz = (text: string): Uint8Array => new TextEncoder().encode(`${text}\0`)

const modules = [
  { name: "first", text: "1", bytes: asciz("one") },
  { name: "second", text: "--two=2", bytes: asciz("two") }
]

const runKernel = (kernel: Uint8Array) =>
  Effect.gen(function*() {
    const { console, vm } = yield* usedVm
    const sizes = yield* recorder(vm)
    yield* vm.load(
      yield* Multiboot.plan({
        kernel: { name: "kernel", bytes: kernel },
        commandLine: "kernel --verbose",
        modules: modules.map(({ bytes, name, text }) => ({ name, bytes, commandLine: `${name} ${text}` })),
        memoryBytes: vm.memoryBytes
      })
    )
    const reason = yield* runToEnd(vm)
    return { reason, text: console.text, sizes: sizes.map((request) => request._tag === "PortWrite" && request.value) }
  })

const PRINTED = "kernel --verbose\nfirst 1\none\nsecond --two=2\ntwo\n"

/** What `runKernel` gives for the kernel of the system's tools. */
const RAN: Effect.Success<ReturnType<typeof runKernel>> = {
  reason: { _tag: "Exited", status: 0 },
  text: `Upcall\n${PRINTED}`,
  sizes: [639, 1024]
}

const printAndExit = (text: string): Guest.Code => [
  ...Array.from(text).flatMap((character) => Guest.out(0x3f8, character.charCodeAt(0))),
  ...Guest.out(0xf4, 0),
  ...Guest.stop
]

const runSmall = (load: (vm: CreatedVm) => Effect.Effect<void, unknown>) =>
  Effect.gen(function*() {
    const { console, vm } = yield* usedVm
    yield* Effect.orDie(load(vm))
    return [yield* runToEnd(vm), console.text] as const
  })

describe("images", () => {
  for (const name of ["Emulated", "Simulated"] as const) {
    it.effect.skipIf(Binutils.skipped !== "")(
      `a Multiboot kernel of the system's tools runs on ${name}${Binutils.skipped}`,
      () =>
        Effect.gen(function*() {
          const ran = yield* runKernel(Binutils.linked("multiboot.s", 32)).pipe(on(name))
          assert.deepStrictEqual(ran, RAN)
        })
    )

    it.effect(`a Multiboot kernel without ELF runs on ${name}`, () =>
      Effect.gen(function*() {
        const header = multibootHeader(1 << 16, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020)
        const kernel = { name: "kernel", bytes: Uint8Array.from([...header, ...printAndExit("multiboot")]) }
        const ran = yield* runSmall((vm) =>
          Effect.flatMap(Multiboot.plan({ kernel, memoryBytes: vm.memoryBytes }), vm.load)
        ).pipe(on(name))
        assert.deepStrictEqual(ran, [{ _tag: "Exited", status: 0 }, "multiboot"])
      }))

    it.effect(`a 32-bit ELF program runs on ${name}, with a stack`, () =>
      Effect.gen(function*() {
        // push eax; pop eax
        const bytes = elf({ bits: 32, put: [[0x1000, Uint8Array.from([0x50, 0x58, ...printAndExit("elf")])]] })
        const ran = yield* runSmall((vm) => Effect.flatMap(Elf.plan({ bytes, memoryBytes: vm.memoryBytes }), vm.load))
          .pipe(on(name))
        assert.deepStrictEqual(ran, [{ _tag: "Exited", status: 0 }, "elf"])
      }))

    it.effect(`64-bit code is refused by ${name}, with nothing written`, () =>
      Effect.gen(function*() {
        const { vm } = yield* usedVm
        for (
          const plan of [
            yield* Elf.plan({ bytes: elf(), memoryBytes: vm.memoryBytes }),
            yield* FlatBinary.plan({
              bytes: Guest.code(Guest.hlt),
              address: 0x1000,
              mode: "Long64",
              memoryBytes: vm.memoryBytes
            })
          ]
        ) {
          const error = yield* Effect.flip(vm.load(plan))
          assert.include(error.message, "cannot give a vCPU start in mode Long64")
        }
        assert.deepStrictEqual(yield* vm.memory.read(0x10_0000, 4), new Uint8Array(4).fill(0xff))
      }).pipe(on(name)))
  }

  const problem = kvmProblem()
  const withoutKvm = problem === undefined ? Binutils.skipped : ` (skipped: ${problem})`

  it.live.skipIf(withoutKvm !== "")(
    `a Multiboot kernel of the system's tools runs on Kvm${withoutKvm}`,
    () =>
      Effect.gen(function*() {
        const ran = yield* runKernel(Binutils.linked("multiboot.s", 32)).pipe(on("Kvm"))
        assert.deepStrictEqual(ran, RAN)
      })
  )

  it.live.skipIf(withoutKvm !== "")(
    `a 64-bit ELF program of the system's tools runs on Kvm${withoutKvm}`,
    () =>
      Effect.gen(function*() {
        const bytes = Binutils.linked("long64.s", 64)
        const ran = yield* runSmall((vm) => Effect.flatMap(Elf.plan({ bytes, memoryBytes: vm.memoryBytes }), vm.load))
          .pipe(on("Kvm"))
        assert.deepStrictEqual(ran, [{ _tag: "Exited", status: 0 }, "64 bits\n"])
      })
  )

  it.skipIf(Binutils.skippedWithoutQemu !== "")(
    `the same kernel is told the same by QEMU's loader${Binutils.skippedWithoutQemu}`,
    () => {
      const printed = Binutils.underQemu("multiboot.s", "--verbose", modules)
      assert.strictEqual(printed, `qemu\n${PRINTED.replace("kernel", "linked")}`)
    }
  )

  it.effect("load sets what a segment has, zeros included, and not a byte beside it", () =>
    Effect.gen(function*() {
      const { vm } = yield* usedVm
      const programs = [
        { offset: 0x1000, vaddr: 0x10_0000, filesz: 0x800, memsz: 0x2_3001 },
        { vaddr: 0x18_0000, memsz: 5 }
      ]
      const bytes = elf({ bits: 32, programs })
      yield* vm.load(yield* Elf.plan({ bytes, memoryBytes: vm.memoryBytes }))
      const expected = new Uint8Array(2 * MiB).fill(0xff)
      expected.fill(0, 0x10_0000, 0x12_3001).fill(0, 0x18_0000, 0x18_0005)
      expected.set(bytes.subarray(0x1000, 0x1800), 0x10_0000)
      assert.deepStrictEqual(Buffer.compare(yield* vm.memory.read(0, 2 * MiB), expected), 0)
      assert.isBelow(0x1800, ELF_BYTES)
    }).pipe(on("Simulated")))

  it.effect("load refuses zeros beyond the memory, with nothing written", () =>
    Effect.gen(function*() {
      const { vm } = yield* usedVm
      const programs = [{ offset: 0x1000, vaddr: 0x10_0000, filesz: 0x800, memsz: 2 * MiB }]
      const plan = yield* Elf.plan({ bytes: elf({ bits: 32, programs }), memoryBytes: 4 * MiB })
      const error = yield* Effect.flip(vm.load(plan))
      assert.include(error.message, "with 2097152 bytes is not wholly in RAM")
      assert.deepStrictEqual(yield* vm.memory.read(0x10_0000, 4), new Uint8Array(4).fill(0xff))
    }).pipe(on("Simulated")))
})
