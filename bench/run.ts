/**
 * Prints one line of JSON for each figure: `npm run bench`, or `npm run bench -- slot mips` for those whose name
 * contains one of the words. `--quick` is for trying figures out: it measures hardly at all.
 *
 * Each figure is measured in a process of its own: what one figure taught the JavaScript engine about a function must
 * not slow another one down.
 */
import { spawnSync } from "node:child_process"
import { figure as acrnIoctl } from "./acrn-ioctl.ts"
import { figure as acrnRequests } from "./acrn-requests.ts"
import { figure as dispatchTrip } from "./dispatch-trip.ts"
import { figure as emulatedLinuxBoot } from "./emulated-linux-boot.ts"
import { figure as emulatedPause } from "./emulated-pause.ts"
import { figure as emulatedPio } from "./emulated-pio.ts"
import { type Figure, line, QUICK } from "./harness.ts"
import { figure as importTime } from "./import-time.ts"
import { mmioFigure as kvmMmio, overheadFigure as kvmOverhead, portFigure as kvmPort } from "./kvm-exit.ts"
import { figure as kvmIoeventfd } from "./kvm-ioeventfd.ts"
import { figure as kvmOverQemu } from "./kvm-over-qemu.ts"
import { figure as kvmVmCreateDestroy } from "./kvm-vm-create-destroy.ts"
import { figure as kvmWorkerExit } from "./kvm-worker-exit.ts"
import { figure as simGuestMips } from "./sim-guest-mips.ts"
import { figure as simSlotObserved } from "./sim-slot-observed.ts"
import { figure as simSlotRoundTrip } from "./sim-slot-round-trip.ts"
import { figure as simSlowHandler } from "./sim-slow-handler.ts"
import { figure as simVmCreateDestroy } from "./sim-vm-create-destroy.ts"
import { figure as stuckClient } from "./stuck-client.ts"

const figures: ReadonlyArray<Figure> = [
  simSlotRoundTrip,
  simSlotObserved,
  simSlowHandler,
  dispatchTrip,
  stuckClient,
  simGuestMips,
  emulatedPio,
  emulatedPause,
  simVmCreateDestroy,
  importTime,
  acrnIoctl,
  acrnRequests,
  kvmPort,
  kvmOverhead,
  kvmWorkerExit,
  kvmMmio,
  kvmOverQemu,
  kvmIoeventfd,
  kvmVmCreateDestroy,
  emulatedLinuxBoot
]

const ALONE = "--alone="

const measureAlone = async (metric: string): Promise<void> => {
  const figure = figures.find((each) => each.metric === metric)
  if (figure === undefined) throw new Error(`there is no figure ${metric}`)
  process.stdout.write(`${line(figure, await figure.run())}\n`)
}

const measureAll = (words: ReadonlyArray<string>, isQuick: boolean): void => {
  const wanted = figures.filter(({ metric }) => words.length === 0 || words.some((word) => metric.includes(word)))
  if (wanted.length === 0) {
    const names = figures.map(({ metric }) => `  ${metric}\n`).join("")
    process.stderr.write(`no figure matches ${words.join(", ")}; there are:\n${names}`)
    process.exitCode = 2
  }
  for (const { flags = [], metric } of wanted) {
    const child = spawnSync(process.execPath, [...flags, import.meta.filename, `${ALONE}${metric}`], {
      stdio: ["ignore", "inherit", "inherit"],
      env: isQuick ? { ...process.env, [QUICK]: "1" } : process.env
    })
    if (child.status !== 0) {
      process.exitCode = 1
      process.stdout.write(`${JSON.stringify({ metric, failed: `exit code ${child.status ?? child.signal}` })}\n`)
    }
  }
}

const words = process.argv.slice(2)
const [first = ""] = words
if (first.startsWith(ALONE)) await measureAlone(first.slice(ALONE.length))
else measureAll(words.filter((word) => word !== "--quick"), words.includes("--quick"))
