/**
 * The part of the WebAssembly JavaScript API that the emulated CPU uses, with JavaScript Promise Integration (JSPI).
 *
 * `lib` has no DOM in `src`, and TypeScript's own declarations do not know JSPI yet, so the types are written out here
 * and nothing is added to the global scope.
 *
 * @since 0.1.0
 */
import { CpuError } from "./CpuError.ts"

/**
 * A compiled module; opaque.
 *
 * @category models
 * @since 0.1.0
 */
export interface Module {
  readonly [Symbol.toStringTag]: "WebAssembly.Module"
}

/**
 * Any function that crosses the border of a module.
 *
 * @category models
 * @since 0.1.0
 */
export type WasmFunction = (...values: ReadonlyArray<never>) => unknown

/**
 * A linear memory; `buffer` is another one after it has grown.
 *
 * @category models
 * @since 0.1.0
 */
export interface Memory {
  readonly buffer: ArrayBuffer
}

/**
 * A table of functions.
 *
 * @category models
 * @since 0.1.0
 */
export interface Table {
  readonly set: (index: number, value: WasmFunction | null) => void
}

/** A global of a module. */
interface Global {
  value: number
}

/** A function object that suspends the calling wasm stack until the promise it returns is settled. */
interface Suspending {
  readonly [Symbol.toStringTag]: "WebAssembly.Suspending"
}

/**
 * What a module imports or exports.
 *
 * @category models
 * @since 0.1.0
 */
export type Extern = WasmFunction | Memory | Table | Global | Suspending

/**
 * An instance; its exports are typed where the module is known.
 *
 * @category models
 * @since 0.1.0
 */
export interface Instance {
  readonly exports: Readonly<Record<string, Extern>>
}

/**
 * The global `WebAssembly` object.
 *
 * @category models
 * @since 0.1.0
 */
export interface Api {
  readonly Module: new(bytes: Uint8Array<ArrayBuffer>) => Module
  readonly Instance: new(
    module: Module,
    imports: Readonly<Record<string, Readonly<Record<string, Extern>>>>
  ) => Instance
  readonly Table: new(descriptor: { readonly element: "anyfunc"; readonly initial: number }) => Table
  readonly Global: new(descriptor: { readonly value: "i32"; readonly mutable: true }, value: number) => Global
  readonly Suspending: new(f: () => unknown) => Suspending
  readonly promising: (f: WasmFunction) => () => Promise<unknown>
  readonly RuntimeError: new(message?: string) => Error
  readonly compile: (bytes: Uint8Array<ArrayBuffer>) => Promise<Module>
}

/**
 * The engine's WebAssembly with stack switching. Throws a `CpuError` with reason `MissingFeature` when the engine has
 * no JSPI (Node.js before 24, older browsers).
 *
 * @category constructors
 * @since 0.1.0
 */
export const api = (): Api => {
  const engine = globalThis as { readonly WebAssembly?: Partial<Api> }
  const found = engine.WebAssembly
  if (found === undefined) {
    throw new CpuError({ reason: { _tag: "MissingFeature", feature: "WebAssembly" } })
  }
  if (typeof found.Suspending !== "function" || typeof found.promising !== "function") {
    throw new CpuError({
      reason: { _tag: "MissingFeature", feature: "JavaScript Promise Integration (WebAssembly.Suspending)" }
    })
  }
  return found as Api
}
