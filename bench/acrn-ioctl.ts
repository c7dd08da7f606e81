/** An empty round trip into ACRN's driver, from JavaScript and from C, both inside User-Mode Linux. */
import * as Effect from "effect/Effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { whereBuilt } from "./acrn/skip.ts"
import { type Comparison, type Figure, type Measurement, measurement, QUICK, type Skipped } from "./harness.ts"

const SOURCE = join(import.meta.dirname, "acrn/ioctl.c")

const measureWith = async (folder: string): Promise<Measurement | Skipped> => {
  const library = join(folder, "ioctl.so")
  const compiled = spawnSync("cc", ["-O2", "-shared", "-fPIC", "-o", library, SOURCE], { encoding: "utf8" })
  if (compiled.status !== 0) return { skipped: `no C compiler made the peer: ${compiled.error ?? compiled.stderr}` }
  // Not before it is known that there is a kernel: it needs koffi.
  const { runNodeInside } = await import("../test/hsm/boot.ts")
  const { end, errors, reports: [report] } = await Effect.runPromise(runNodeInside({
    file: "bench/acrn/ioctlInside.ts",
    args: [library],
    environment: QUICK in process.env ? { [QUICK]: "1" } : {},
    seconds: 120
  }))
  if (report === undefined) throw new Error(`inside it ended, ${JSON.stringify(end)}: ${errors.join("\n")}`)
  const { layerNs, ...compared } = report as Comparison & { readonly layerNs: number }
  return measurement(compared, "the same in C, same process", { details: { layerNs } })
}

export const figure: Figure = {
  metric: "acrn.ioctl_ns",
  unit: "ns",
  run: () =>
    whereBuilt(async () => {
      const folder = mkdtempSync(join(tmpdir(), "upcall-bench-"))
      try {
        return await measureWith(folder)
      } finally {
        rmSync(folder, { recursive: true })
      }
    })
}
