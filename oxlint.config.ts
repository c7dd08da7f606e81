import { defineConfig } from "oxlint"

type Folder = "domain" | "services" | "layers" | "testing" | "cli"

/** What no module under src imports, wherever it is. */
const barrel = {
  name: "effect",
  message: "Import the module itself (`import * as Effect from \"effect/Effect\"`): the barrel loads all of Effect."
}
const ownName = {
  regex: "^upcall(/|$)",
  message: "Import the file by its relative path: the package's own name means the published build."
}
const outsideSrc = {
  regex: "^(\\.\\./)+(test|bench|scripts|tools|guests|docs)/",
  message: "src is what is published: it imports nothing from outside src."
}
const testTools = {
  regex: "^(@effect/vitest|vitest|fast-check)(/|$)",
  message: "A test tool does not belong in the published library: `effect/Arbitrary` makes generators without one."
}

/** What ties a module to Node.js. */
const node = [
  {
    regex: "^node:",
    message:
      "This folder also runs in a browser: take bytes, or Effect's FileSystem. Only src/cli uses Node.js directly."
  },
  {
    regex: "^@effect/platform-node",
    message: "This folder also runs in a browser: only src/cli chooses a platform."
  }
]

/** The dependency arrow domain <- services <- layers <- testing, cli: an import against it reaches `folders`. */
const against = (from: string, folders: ReadonlyArray<Folder>) => ({
  regex: `^\\.\\.?/(.*/)?(${folders.join("|")})/`,
  message: `The arrow is domain <- services <- layers <- testing, cli: ${from} does not import ${folders.join(", ")}.`
})

const imports = (
  patterns: ReadonlyArray<{ regex: string; message: string }>
): ["error", { paths: Array<typeof barrel>; patterns: Array<typeof ownName> }] => [
  "error",
  { paths: [barrel], patterns: [ownName, outsideSrc, ...patterns] }
]

const folder = (name: Folder, files: Array<string>, folders: ReadonlyArray<Folder>) => ({
  files,
  rules: {
    "no-restricted-imports": imports([against(name, folders), testTools, ...node])
  }
})

export default defineConfig({
  plugins: ["eslint", "typescript", "unicorn", "oxc", "import"],
  categories: { correctness: "error", suspicious: "error", perf: "error" },
  options: { typeAware: true, denyWarnings: true, reportUnusedDisableDirectives: "error" },
  ignorePatterns: ["**/node_modules", "dist", "/guests"],
  rules: {
    "import/no-cycle": "error",
    "typescript/array-type": ["error", { default: "generic" }],
    // A tagged union that grows a case must not fall through a switch in silence.
    "typescript/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
    "eqeqeq": "error",
    "prefer-const": "error",
    // `it` is given again to the callback of `layer(...)`: that is how @effect/vitest scopes it.
    "no-shadow": ["error", { allow: ["it"] }],

    // Rules that contradict the way Effect is written:
    // a generator without a yield is an Effect that happens to need nothing yet;
    "require-yield": "off",
    // services are records of closures, and their members are passed on without `this`;
    "unbound-method": "off",
    // `_tag` is the discriminator of every tagged value;
    "no-underscore-dangle": "off",
    // a brand is given by an assertion where the value was just checked, without a decode on the hot path;
    "typescript/no-unsafe-type-assertion": "off",
    // helpers live beside their only use, inside the generator;
    "unicorn/consistent-function-scoping": "off",
    // a type parameter used once still names what a caller may fix, and carries variance;
    "typescript/no-unnecessary-type-parameters": "off",
    // `return yield* new XError()` beside plain returns is the idiom; noImplicitReturns finds the real mistakes;
    "consistent-return": "off",
    // copying a small immutable record with one change is the point, and costs little;
    "oxc/no-map-spread": "off",
    // `import * as X` is resolved and checked by the compiler.
    "import/namespace": "off"
  },
  overrides: [
    {
      files: ["src/**"],
      rules: {
        "no-console": "error",
        "typescript/no-explicit-any": "error",
        // A run must be reproducible from its seed: time and chance come in as services.
        "no-restricted-properties": [
          "error",
          {
            object: "Date",
            property: "now",
            message: "Take time from Effect's Clock, so that a run can be reproduced."
          },
          {
            object: "Math",
            property: "random",
            message: "Take chance from Effect's Random, so that a run can be reproduced."
          }
        ],
        // src/index.ts, and whatever has no folder of its own.
        "no-restricted-imports": imports([against("the package's entry", ["testing", "cli"]), testTools, ...node])
      }
    },
    folder("domain", ["src/domain/**"], ["services", "layers", "testing", "cli"]),
    folder("services", ["src/services/**"], ["layers", "testing", "cli"]),
    folder("layers", ["src/layers/**"], ["testing", "cli"]),
    {
      // The layers that call a kernel run on Node.js alone.
      files: [
        "src/layers/Acrn.ts",
        "src/layers/acrn/**",
        "src/layers/Kvm.ts",
        "src/layers/kvm/**",
        "src/layers/native/**"
      ],
      rules: {
        "no-restricted-imports": imports([against("layers", ["testing", "cli"]), testTools]),
        // The rule is for windows; these messages go to threads.
        "unicorn/require-post-message-target-origin": "off"
      }
    },
    folder("testing", ["src/testing/**"], ["cli"]),
    {
      // The one module that registers tests; it stands apart from the entry `upcall/testing`.
      files: ["src/testing/Laws.ts"],
      rules: {
        "no-restricted-imports": imports([against("testing", ["cli"]), ...node])
      }
    },
    {
      files: ["src/cli/**"],
      rules: {
        "no-restricted-imports": imports([testTools])
      }
    },
    {
      files: ["test/**"],
      rules: {
        "no-restricted-imports": [
          "error",
          {
            paths: [
              { name: "@effect/vitest", importNames: ["expect"], message: "Use `assert`." },
              { name: "vitest", importNames: ["expect"], message: "Use `assert` of @effect/vitest." }
            ]
          }
        ],
        // Under vitest 5 these fall through to something that registers no test at all, and the file passes.
        "no-restricted-properties": [
          "error",
          { object: "it", property: "scoped", message: "It registers no test: `it.effect` is scoped already." },
          { object: "it", property: "scopedLive", message: "It registers no test: `it.live` is scoped already." }
        ]
      }
    },
    {
      files: ["test/**", "bench/**", "scripts/**"],
      rules: {
        // One after another is what a script or a measurement means.
        "no-await-in-loop": "off",
        // The schema compiler of Effect is switched on by importing it.
        "import/no-unassigned-import": ["error", { allow: ["effect/schema/**"] }]
      }
    }
  ]
})
