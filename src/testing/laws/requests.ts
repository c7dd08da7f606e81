/** Requests as the laws fill slots with them. */
import { type GuestAddress, type Port, VcpuId } from "../../domain/Address.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { PORT_SPACE_END } from "../../domain/Limits.ts"
import * as Generator from "../Generator.ts"
import { meetsConfigPorts } from "./configPorts.ts"

const MMIO = 0xe000_0000

const narrow = Generator.elementOf([1, 2, 4] as const)
const vcpu = VcpuId.make(0)

/** A read, or a write of as many bytes as it is wide. */
const access = <A extends { readonly size: number }>(
  at: Generator.Generator<A>,
  read: (at: A) => IoRequest,
  write: (at: A, value: bigint) => IoRequest
): Generator.Generator<IoRequest> =>
  Generator.flatMap(at, (place) =>
    Generator.oneOf(
      Generator.constant(read(place)),
      Generator.map(Generator.bits(8 * place.size), (value) => write(place, value))
    ))

const portAccess = access(
  Generator.flatMap(narrow, (size) =>
    Generator.map(Generator.integer(0, PORT_SPACE_END - size), (at) => ({
      size,
      // The service answers the ports of PCI's address register by itself.
      port: (meetsConfigPorts({ port: at, size }) ? 0 : at) as Port
    }))),
  (at) => ({ _tag: "PortRead", vcpu, ...at }),
  (at, value) => ({ _tag: "PortWrite", vcpu, ...at, value: Number(value) })
)

const mmioAccess = access(
  Generator.map(
    Generator.all([Generator.elementOf([1, 2, 4, 8] as const), Generator.integer(0, 0xffff)]),
    ([size, offset]) => ({ size, address: (MMIO + offset) as GuestAddress })
  ),
  (at) => ({ _tag: "MmioRead", vcpu, ...at }),
  (at, value) => ({ _tag: "MmioWrite", vcpu, ...at, value })
)

const pciAccess = access(
  Generator.map(
    Generator.all({
      size: narrow,
      bus: Generator.integer(0, 255),
      device: Generator.integer(0, 31),
      function: Generator.integer(0, 7),
      dword: Generator.integer(0, 0x3ff)
    }),
    ({ dword, ...at }) => ({ ...at, register: 4 * dword })
  ),
  (at) => ({ _tag: "PciRead", vcpu, ...at }),
  (at, value) => ({ _tag: "PciWrite", vcpu, ...at, value: Number(value) })
)

/** What any guest can ask of its devices, of vCPU 0. */
export const anyRequest: Generator.Generator<IoRequest> = Generator.oneOf(portAccess, mmioAccess, pciAccess)

/** What handlers may answer, also more than fits the access. */
export const anyAnswer: Generator.Generator<IoValue> = Generator.oneOf<IoValue>(
  Generator.integer(0, 0xffff_ffff),
  Generator.integer(-1, 2 ** 40),
  Generator.bits(64),
  Generator.constant(undefined)
)

/** The same request of another vCPU. */
export const ofVcpu = (request: IoRequest, slot: number): IoRequest => ({ ...request, vcpu: VcpuId.make(slot) })

/** The bytes that a guest gets from an answer, lowest first; none for a write. No answer is all-ones. */
export const answerBytes = (request: IoRequest, answer: IoValue): ReadonlyArray<number> =>
  "value" in request
    ? []
    : Array.from({ length: request.size }, (_, byte) => Number(BigInt(answer ?? -1) >> BigInt(8 * byte) & 0xffn))
