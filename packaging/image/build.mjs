// Makes the image of the Dockerfile beside it without an engine: an archive in the OCI layout, with
// the same bytes at each build. It also prepares the context for `docker build`, in the folder
// `image` beside the archive.
//
//   node packaging/image/build.mjs [--with-libraries] PROGRAM ARCHIVE
//
// --with-libraries is for tests with a program that is not static: its shared libraries come, too.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const ARCHITECTURES = { 62: 'amd64', 183: 'arm64' };
const UNITS = { ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

/** Reads a Dockerfile into the configuration of an image and the files that it copies. */
export function readDockerfile(text) {
  const config = { Env: [], ExposedPorts: {}, Volumes: {} };
  const copies = [];
  for (const line of text.split('\n').filter((line) => line && !line.startsWith('#'))) {
    const [, word, rest] = /^([A-Z]+) (.*)$/.exec(line) ?? [];
    const [, user, values] = /^(?:--chown=(\S+) )?(.*)$/.exec(rest ?? '');
    if (word === 'FROM' && rest === 'scratch') continue;
    else if (word === 'COPY') {
      const [from, to] = values.split(' ');
      const [uid, gid] = (user ?? '0:0').split(':').map(Number);
      copies.push({ from, to, uid, gid });
    } else if (word === 'ENV') config.Env.push(rest);
    else if (word === 'USER') config.User = rest;
    else if (word === 'WORKDIR') config.WorkingDir = rest;
    else if (word === 'VOLUME') for (const volume of JSON.parse(rest)) config.Volumes[volume] = {};
    else if (word === 'EXPOSE') config.ExposedPorts[rest] = {};
    else if (word === 'STOPSIGNAL') config.StopSignal = rest;
    else if (word === 'ENTRYPOINT') config.Entrypoint = JSON.parse(rest);
    else if (word === 'HEALTHCHECK') {
      const [, options, command] = /^((?:--\S+ )*)CMD (.*)$/.exec(rest);
      config.Healthcheck = { Test: ['CMD', ...JSON.parse(command)] };
      for (const [, name, value, unit] of options.matchAll(/--([a-z-]+)=(\d+)([a-z]*)/g)) {
        const key = { interval: 'Interval', timeout: 'Timeout', 'start-period': 'StartPeriod' }[name];
        config.Healthcheck[key ?? 'Retries'] = Number(value) * (UNITS[unit] ?? 1);
      }
    } else throw new Error(`the Dockerfile has a line that build.mjs does not know: ${line}`);
  }
  return { config, copies };
}

/** Returns a tar archive (ustar) of `{ name, data, mode, uid, gid }`; without data, a folder. */
export function tar(entries) {
  const blocks = [];
  for (const { name, data, mode, uid = 0, gid = 0 } of entries) {
    const header = Buffer.alloc(512);
    if (name.length > 100) throw new Error(`the name is too long for the archive: ${name}`);
    const octal = (value, at, length) => header.write(value.toString(8).padStart(length - 1, '0'), at);
    header.write(name, 0);
    octal(mode, 100, 8);
    octal(uid, 108, 8);
    octal(gid, 116, 8);
    octal(data?.length ?? 0, 124, 12);
    octal(0, 136, 12);
    header.write('        ', 148);
    header.write(data ? '0' : '5', 156);
    header.write('ustar\x0000', 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    blocks.push(header);
    if (data) blocks.push(data, Buffer.alloc(-data.length & 511));
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

/** Returns the architecture of a program for Linux, and `true` if it needs no other file. */
export function inspect(program) {
  if (program.length < 64 || program.readUInt32BE(0) !== 0x7f454c46 || program[4] !== 2)
    throw new Error('the program is not one for Linux of 64 bits (ELF)');
  const architecture = ARCHITECTURES[program.readUInt16LE(18)];
  if (!architecture) throw new Error('the program is for an unknown architecture');
  const [start, size, count] = [Number(program.readBigUInt64LE(32)), program.readUInt16LE(54), program.readUInt16LE(56)];
  const types = Array.from({ length: count }, (_, index) => program.readUInt32LE(start + index * size));
  const INTERPRETER = 3;
  return { architecture, isStatic: !types.includes(INTERPRETER) };
}

/** The files that a program loads, the loader among them. */
function libraries(program) {
  const output = execFileSync('ldd', [program], { encoding: 'utf8' });
  return [...output.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path);
}

function folders(path) {
  const parts = path.split('/').slice(1, -1);
  return parts.map((_, index) => `${parts.slice(0, index + 1).join('/')}/`);
}

/** Returns the archive of the image. */
export function build(programPath, { withLibraries = false } = {}) {
  const program = readFileSync(programPath);
  const { architecture, isStatic } = inspect(program);
  if (!isStatic && !withLibraries)
    throw new Error(`${programPath} needs shared libraries, which the image lacks: build it static, by make dist`);
  const { config, copies } = readDockerfile(readFileSync(join(here, 'Dockerfile'), 'utf8'));
  const entries = copies.map(({ from, to, uid, gid }) =>
    from === 'data'
      ? { name: `${to.slice(1)}/`, mode: 0o700, uid, gid }
      : { name: to.slice(1), data: program, mode: 0o755, uid, gid },
  );
  if (!isStatic) {
    const paths = libraries(programPath);
    for (const name of new Set(paths.flatMap(folders))) entries.push({ name, mode: 0o755 });
    for (const path of paths)
      entries.push({ name: path.slice(1), data: readFileSync(realpathSync(path)), mode: 0o755 });
  }
  const blobs = [];
  const blob = (mediaType, data) => {
    const bytes = Buffer.isBuffer(data) ? data : Buffer.from(JSON.stringify(data));
    const digest = createHash('sha256').update(bytes).digest('hex');
    blobs.push({ name: `blobs/sha256/${digest}`, data: bytes, mode: 0o644 });
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
  };
  const version = /^version = "(.*)"/m.exec(readFileSync(join(here, '../../Cargo.toml'), 'utf8'))[1];
  const labels = {
    'org.opencontainers.image.title': 'waterclock',
    'org.opencontainers.image.version': version,
    'org.opencontainers.image.licenses': 'MIT OR Apache-2.0',
  };
  const layer = blob('application/vnd.oci.image.layer.v1.tar', tar(entries));
  const image = blob('application/vnd.oci.image.config.v1+json', {
    // Without the time of the build, which would change the bytes.
    created: '1970-01-01T00:00:00Z',
    architecture,
    os: 'linux',
    config: { ...config, Labels: labels },
    rootfs: { type: 'layers', diff_ids: [layer.digest] },
  });
  const manifest = blob('application/vnd.oci.image.manifest.v1+json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: image,
    layers: [layer],
    annotations: labels,
  });
  const name = `waterclock:${version}`;
  const annotations = { 'org.opencontainers.image.ref.name': version, 'io.containerd.image.name': `docker.io/library/${name}` };
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [{ ...manifest, platform: { architecture, os: 'linux' }, annotations }],
  };
  const json = (file, value) => ({ name: file, data: Buffer.from(JSON.stringify(value)), mode: 0o644 });
  // Docker's own format beside it: not each Docker reads the OCI layout.
  const path = ({ digest }) => `blobs/sha256/${digest.slice('sha256:'.length)}`;
  const docker = [{ Config: path(image), RepoTags: [name], Layers: [path(layer)] }];
  return tar([
    json('oci-layout', { imageLayoutVersion: '1.0.0' }),
    json('index.json', index),
    json('manifest.json', docker),
    { name: 'blobs/', mode: 0o755 },
    { name: 'blobs/sha256/', mode: 0o755 },
    ...blobs,
  ]);
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  const withLibraries = process.argv[2] === '--with-libraries';
  const [program, archive] = process.argv.slice(withLibraries ? 3 : 2);
  if (!archive) {
    console.error('usage: node packaging/image/build.mjs [--with-libraries] PROGRAM ARCHIVE');
    process.exit(2);
  }
  try {
    const bytes = build(program, { withLibraries });
    const context = join(dirname(resolve(archive)), 'image');
    rmSync(context, { recursive: true, force: true });
    mkdirSync(join(context, 'data'), { recursive: true, mode: 0o700 });
    copyFileSync(program, join(context, 'waterclock'));
    writeFileSync(archive, bytes);
  } catch (error) {
    console.error(`image: ${error.message}`);
    process.exit(1);
  }
}
