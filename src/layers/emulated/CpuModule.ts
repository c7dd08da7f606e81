/**
 * The core, compiled once for every CPU of a process.
 *
 * @since 0.1.0
 */
import { compileShim } from "./SuspendingShim.ts"
import { verify } from "./WasmBytes.ts"
import * as WasmFile from "./WasmFile.ts"
import * as WebAssemblyApi from "./WebAssemblyApi.ts"

/**
 * The compiled core and shim. Immutable; any number of CPUs are made from one.
 *
 * @category models
 * @since 0.1.0
 */
export interface CpuModule {
  readonly api: WebAssemblyApi.Api
  readonly core: WebAssemblyApi.Module
  readonly shim: WebAssemblyApi.Module
}

/**
 * Compiles the core from the bytes of the pinned `v86.wasm`, which takes tens of milliseconds and megabytes: keep the
 * result. Rejects with a `CpuError` of reason `MissingFeature` or `WasmDigest`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const compile = async (bytes: Uint8Array): Promise<CpuModule> => {
  const api = WebAssemblyApi.api()
  const core = await api.compile(await verify(bytes))
  return { api, core, shim: compileShim(api) }
}

let shared: Promise<CpuModule> | undefined

/**
 * The core that is installed beside Upcall, compiled once for the whole process; see `WasmFile.ts` for where that
 * works. A failure is not kept: the next call tries again.
 *
 * @category constructors
 * @since 0.1.0
 */
export const installed = (): Promise<CpuModule> => {
  shared ??= WasmFile.read().then(compile).catch((cause: unknown) => {
    shared = undefined
    throw cause
  })
  return shared
}
