/**
 * Lets the CPU wait in the middle of an instruction, but only when there is something to wait for.
 *
 * A `WebAssembly.Suspending` import suspends even when it returns a plain number: microtasks then run inside the
 * guest's instruction, and each access costs several times as much. So a small generated module stands between: it
 * calls a plain import first and the Suspending one only when the plain one has raised the `pending` flag.
 *
 * @since 0.1.0
 */
import { HEADER, Kind, name, natural, Op, Section, section, sized, Type, vector } from "./WasmBinary.ts"
import type { Api, Extern, Module, WasmFunction } from "./WebAssemblyApi.ts"

/** The accesses of the core that can wait: how many words each takes, and whether it gives one back. */
const accesses = {
  io_port_read8: { parameters: 1, answers: true },
  io_port_read16: { parameters: 1, answers: true },
  io_port_read32: { parameters: 1, answers: true },
  io_port_write8: { parameters: 2, answers: false },
  io_port_write16: { parameters: 2, answers: false },
  io_port_write32: { parameters: 2, answers: false },
  mmap_read8: { parameters: 1, answers: true },
  mmap_read32: { parameters: 1, answers: true },
  mmap_write8: { parameters: 2, answers: false },
  mmap_write16: { parameters: 2, answers: false },
  mmap_write32: { parameters: 2, answers: false },
  mmap_write64: { parameters: 3, answers: false },
  mmap_write128: { parameters: 5, answers: false }
} as const

/**
 * The names of the imports of the core that can wait.
 *
 * @category models
 * @since 0.1.0
 */
export type AccessName = keyof typeof accesses

const names = Object.keys(accesses) as Array<AccessName>

const MUTABLE = 1

// Indices in the shim. Imported functions come first: one plain import for each access, then the two that wait.
const WAIT_FOR_WORD = names.length
const WAIT_FOR_NOTHING = names.length + 1
const FIRST_SHIM = names.length + 2
const PENDING = 0

const signature = (parameters: number, answers: boolean): Array<number> => [
  Type.function,
  ...vector(Array.from({ length: parameters }, () => [Type.i32])),
  ...vector(answers ? [[Type.i32]] : [])
]

/** The body of the shim of access number `index`: a call of its plain import, and a wait if that one says so. */
const body = (access: AccessName, index: number): Array<number> => {
  const { answers, parameters } = accesses[access]
  const callPlain = [
    ...Array.from({ length: parameters }, (_, parameter) => [Op.localGet, parameter]).flat(),
    Op.call,
    index
  ]
  const ifPending = [Op.globalGet, PENDING, Op.if]
  // The first parameter is not needed any more, so the answer is kept there.
  const wait = answers
    ? [Op.localSet, 0, ...ifPending, Type.i32, Op.call, WAIT_FOR_WORD, Op.else, Op.localGet, 0, Op.end]
    : [...ifPending, Type.nothing, Op.call, WAIT_FOR_NOTHING, Op.end]
  const noLocals = vector([])
  return sized([...noLocals, ...callPlain, ...wait, Op.end])
}

const shimBytes = (): Uint8Array<ArrayBuffer> => {
  // The type of function number i of the imports and the shims alike is type number i.
  const types = [
    ...names.map((access) => signature(accesses[access].parameters, accesses[access].answers)),
    signature(0, true),
    signature(0, false)
  ]
  const imported = (field: string, description: ReadonlyArray<number>) => [...name("e"), ...name(field), ...description]
  return Uint8Array.from([
    ...HEADER,
    ...section(Section.types, types),
    ...section(Section.imports, [
      ...names.map((access, index) => imported(access, [Kind.function, index])),
      imported("waitForWord", [Kind.function, WAIT_FOR_WORD]),
      imported("waitForNothing", [Kind.function, WAIT_FOR_NOTHING]),
      imported("pending", [Kind.global, Type.i32, MUTABLE])
    ]),
    ...section(Section.functions, names.map((_, index) => natural(index))),
    ...section(
      Section.exports,
      names.map((access, index) => [...name(access), Kind.function, ...natural(FIRST_SHIM + index)])
    ),
    ...section(Section.code, names.map(body))
  ])
}

/**
 * Compiles the shim, which is the same for every CPU.
 *
 * @category constructors
 * @since 0.1.0
 */
export const compileShim = (api: Api): Module => new api.Module(shimBytes())

/**
 * Puts the shim before `handlers`: the result is what the core imports. A handler that returns a number answers at
 * once, and nothing suspends. A handler that has to wait returns `suspend(promise)`: the core's stack is suspended
 * until the promise settles with the word, or its rejection is thrown into the core.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeShim = (
  api: Api,
  shim: Module,
  makeHandlers: (suspend: (promise: Promise<number>) => number) => Readonly<Record<AccessName, WasmFunction>>
): Readonly<Record<string, Extern>> => {
  const pending = new api.Global({ value: "i32", mutable: true }, 0)
  let awaited: Promise<number> | undefined
  const handlers = makeHandlers((promise) => {
    awaited = promise
    pending.value = 1
    return 0
  })
  const wait = new api.Suspending(() => {
    const promise = awaited
    awaited = undefined
    pending.value = 0
    return promise
  })
  return new api.Instance(shim, { e: { ...handlers, waitForWord: wait, waitForNothing: wait, pending } }).exports
}
