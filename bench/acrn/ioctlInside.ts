/** Runs in User-Mode Linux: empty round trips into the driver by koffi and by a library in C, whose file is given. */
import koffi from "koffi"
import { closeSync, constants, openSync } from "node:fs"
import { HsmIoctl } from "../../src/domain/abi/HsmIoctl.ts"
import { openHsm } from "../../src/layers/acrn/HsmFile.ts"
import { loadLibc } from "../../src/layers/native/Libc.ts"
import { compare, median } from "../harness.ts"

const [library = ""] = process.argv.slice(2)

// START_VM on a file that has no VM is refused before anything is looked at: hsm.c:126.
const request = HsmIoctl.StartVm
const fd = openSync("/dev/acrn_hsm", constants.O_RDWR)

const ioctl: (fd: number, request: number, word: number) => number = koffi.load(null).func(
  "int ioctl(int, unsigned long, uintptr_t)"
)
const requests: (fd: number, request: number, count: number) => number = koffi.load(library).func(
  "double requests(int, unsigned long, double)"
)
const file = openHsm(await loadLibc(), "/dev/acrn_hsm")
if (typeof file === "number") throw new Error(`the device gave ${file}`)

const timed = (one: () => number) => (iterations: number): number => {
  const begin = performance.now()
  for (let i = 0; i < iterations; i++) {
    if (one() >= 0) throw new Error("the driver took a request without a VM")
  }
  return (performance.now() - begin) * 1e6
}

const compared = await compare(timed(() => ioctl(fd, request, 0)), (iterations) => requests(fd, request, iterations))
const ofLayer = await compare(timed(() => file.request("StartVm")), (iterations) => requests(fd, request, iterations))
file.close()
closeSync(fd)
console.log(JSON.stringify({ ...compared, layerNs: Math.round(median(ofLayer.ours)) }))
