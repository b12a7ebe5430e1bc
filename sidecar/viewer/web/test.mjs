// Bundles the tests of test/ into a temporary folder and hands them to node's own test runner.
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { build } from "esbuild";

const tests = (await readdir("test")).filter((name) => name.endsWith(".test.ts")).map((name) => join("test", name));
const folder = await mkdtemp(join(tmpdir(), "viewer-tests-"));
try {
  await build({
    entryPoints: tests,
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    target: ["node20"],
    jsx: "automatic",
    jsxImportSource: "preact",
    logLevel: "warning",
  });
  const bundled = (await readdir(folder)).filter((name) => name.endsWith(".mjs")).map((name) => join(folder, name));
  process.exitCode = spawnSync(process.execPath, ["--test", "--test-reporter=spec", ...bundled], { stdio: "inherit" }).status ?? 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
