/**
 * Guests of a few instructions, run on KVM to see whether any can.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EndReason from "../../domain/EndReason.ts"
import * as DebugExit from "../../layers/devices/DebugExit.ts"
import * as FlatBinary from "../../layers/images/FlatBinary.ts"
import type { KvmOptions } from "../../layers/Kvm.ts"
import * as VirtualMachine from "../../services/VirtualMachine.ts"
import type { Trial, Trials } from "./Facts.ts"

const STATUS = 42
const MEMORY_BYTES = 64 * 4096

const code = (...parts: ReadonlyArray<ReadonlyArray<number>>): Uint8Array => Uint8Array.from(parts.flat())

// mov al, 42; out 0xf4, al; hlt: the same bytes in 32-bit and in 64-bit code.
const exit = [0xb0, STATUS, 0xe6, 0xf4, 0xf4]

const ADDRESS = 0x1000
const DIRECTORY = 0x2000

/** Flat segments for code (8) and data (16), behind a descriptor that nothing reads: it is where the table is. */
const DESCRIPTORS = [
  [23, 0, 0, ADDRESS >> 8, 0, 0, 0, 0],
  [0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0],
  [0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]
]

/** Each ends with `STATUS`. */
const GUESTS = {
  first: { mode: "Protected32", bytes: code(exit), entry: ADDRESS },
  longMode: { mode: "Long64", bytes: code(exit), entry: ADDRESS },
  paging: {
    mode: "Protected32",
    bytes: code(
      // mov eax, 0x83; mov [DIRECTORY], eax: the first 4 MiB are mapped to themselves, writable.
      [0xb8, 0x83, 0, 0, 0, 0xa3, 0, DIRECTORY >> 8, 0, 0],
      // mov eax, DIRECTORY; mov cr3, eax.
      [0xb8, 0, DIRECTORY >> 8, 0, 0, 0x0f, 0x22, 0xd8],
      // CR4.PSE: mov eax, cr4; or eax, 0x10; mov cr4, eax.
      [0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x10, 0x0f, 0x22, 0xe0],
      // CR0.PG: mov eax, cr0; or eax, 0x80000000; mov cr0, eax.
      [0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0],
      exit
    ),
    entry: ADDRESS
  },
  interruptReturn: {
    mode: "Protected32",
    bytes: code(
      ...DESCRIPTORS,
      // lgdt [ADDRESS]: the return reads the descriptor of its code segment.
      [0x0f, 0x01, 0x15, 0, ADDRESS >> 8, 0, 0],
      // What an interrupt leaves on the stack: pushf; push cs; call the next instruction, to have an address there
      [0x9c, 0x0e, 0xe8, 0, 0, 0, 0],
      // which becomes that behind the iret: add dword [esp], 5; iret.
      [0x83, 0x04, 0x24, 5, 0xcf],
      exit
    ),
    entry: ADDRESS + DESCRIPTORS.flat().length
  }
} as const

export type GuestName = keyof typeof GUESTS

/** Runs one of them, and tells what happened instead of its end. */
export const runGuest = (name: GuestName) =>
  Effect.gen(function*() {
    const guest = GUESTS[name]
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ name: "trial", memoryBytes: MEMORY_BYTES })
    yield* vm.attach(DebugExit.make())
    yield* vm.load(yield* FlatBinary.plan({ ...guest, address: ADDRESS, memoryBytes: MEMORY_BYTES }))
    const end = yield* (yield* vm.start).ended
    return end._tag === "Exited" && end.status === STATUS ? undefined : EndReason.format(end)
  }).pipe(Effect.scoped)

const SECONDS = 10

/** Runs one of them on a KVM of its own. */
const tryGuest = (name: GuestName, options: KvmOptions): Effect.Effect<Trial> =>
  Effect.promise(() => import("../../layers/Kvm.ts")).pipe(
    Effect.flatMap((Kvm) =>
      Effect.provide(runGuest(name), VirtualMachine.layer.pipe(Layer.provide(Kvm.layerWith(options))), { local: true })
    ),
    Effect.catch(({ message }) => Effect.succeed(message)),
    Effect.timeoutOrElse({
      duration: `${SECONDS} seconds`,
      orElse: () => Effect.succeed(`it did not end within ${SECONDS} seconds`)
    }),
    Effect.map((problem): Trial => problem === undefined ? { _tag: "Ran" } : { _tag: "Failed", problem })
  )

/** Runs the simplest guest there is on the KVM behind `device`. */
export const tryFirst = (device: string): Effect.Effect<Trial> => tryGuest("first", { device })

/** Runs all that a KVM may be able to run or not. */
export const tryAll = (device: string): Effect.Effect<Trials> =>
  Effect.gen(function*() {
    const first = yield* tryFirst(device)
    return first._tag === "Failed"
      ? { first, onPlainCpu: yield* tryGuest("first", { device, cpu: "Plain" }) }
      : {
        first,
        longMode: yield* tryGuest("longMode", { device }),
        paging: yield* tryGuest("paging", { device }),
        interruptReturn: yield* tryGuest("interruptReturn", { device })
      }
  })
