// Tests of the Debian package, the image and the manifests for Kubernetes. They install the package
// into a root of its own, and run the program of the image as a container runtime would.
//
// The program is WATERCLOCK_BINARY, or else that of `make dist`, or else that of `cargo build`. If
// it is not static, its shared libraries are added to the image under test.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build, inspect, readDockerfile } from './image/build.mjs';

const packaging = fileURLToPath(new URL('.', import.meta.url));
const top = join(packaging, '..');
const isRoot = process.getuid() === 0;
const DEADLINE = 60_000;
/** Default of --drain, in seconds. */
const DRAIN = 10;

let folder, program, help;

function has(command) {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0;
}

function run(command, args, options = {}) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], ...options });
}

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'waterclock-packages-'));
  const target = process.env.CARGO_TARGET_DIR ?? join(top, 'target');
  const places = [process.env.WATERCLOCK_BINARY, join(top, 'target/dist/waterclock'), join(target, 'debug/waterclock')];
  const found = places.find((path) => path && existsSync(path));
  assert.ok(found, 'there is no program: run make dist');
  // Without symbols, a debug build is a tenth of its size.
  program = join(folder, 'waterclock');
  run('sh', ['-c', 'strip -o "$1" "$0" 2>/dev/null || cp "$0" "$1"', found, program]);
  help = run(program, ['--help']);
});
after(() => rmSync(folder, { recursive: true, force: true }));

function buildPackage(version, name = 'packages') {
  const env = { ...process.env, DEB_COMPRESSION: '-Znone', SOURCE_DATE_EPOCH: '1700000000' };
  return run(join(packaging, 'deb/build.sh'), [program, join(folder, name), version], { env }).trim();
}

/** The keys of a commented configuration, those that are commented out included. */
const configKeys = (text) => [...text.matchAll(/^#?([a-z-]+) = /gm)].map(([, key]) => key);

test('the package is installed, upgraded, removed and purged', { skip: !has('dpkg-deb') && 'dpkg is not here' }, (t) => {
  const first = buildPackage('1.0.0');
  assert.deepEqual(readFileSync(buildPackage('1.0.0', 'again')), readFileSync(first), 'the same bytes');
  if (!isRoot) return t.diagnostic('not root: the package was not installed');
  const second = buildPackage('1.0.1');
  const root = join(folder, 'root');
  const at = (path) => join(root, path);
  for (const path of ['etc', 'var/lib/dpkg/info', 'var/lib/dpkg/updates', 'var/lib/dpkg/triggers', 'usr/lib', 'run'])
    mkdirSync(at(path), { recursive: true });
  for (const path of ['var/lib/dpkg/status', 'etc/passwd', 'etc/group']) writeFileSync(at(path), '');
  const dpkg = (...args) =>
    run('dpkg', [`--root=${root}`, '--force-script-chrootless', '--force-depends', '--force-confdef', '--force-confold', ...args]);
  const mode = (path) => (lstatSync(at(path)).mode & 0o7777).toString(8);

  const depends = run('dpkg-deb', ['--field', first, 'Depends']).trim();
  if (inspect(readFileSync(program)).isStatic) assert.equal(depends, '', 'a static program depends on nothing');
  else assert.match(depends, /^libc6 \(>= \d/);

  dpkg('--install', first);
  const [, user, group] = /^waterclock:[^:]*:(\d+):(\d+):/m.exec(readFileSync(at('etc/passwd'), 'utf8'));
  const data = statSync(at('var/lib/waterclock'));
  assert.deepEqual([data.uid, data.gid, mode('var/lib/waterclock')], [Number(user), Number(group), '700']);
  assert.notEqual(data.uid, 0, 'a user of its own');
  for (const [path, expected] of [['usr/bin/waterclock', '755'], ['etc/waterclock/config.toml', '644']]) {
    assert.deepEqual([mode(path), statSync(at(path)).uid], [expected, 0], path);
  }
  for (const name of ['waterclock.service', 'waterclock.socket'])
    assert.ok(existsSync(at(`usr/lib/systemd/system/${name}`)), name);
  assert.match(run(at('usr/bin/waterclock'), ['--version']), /^waterclock \d/);
  assert.match(readFileSync(at('usr/share/doc/waterclock/copyright'), 'utf8'), /Permission is hereby granted/);

  const config = at('etc/waterclock/config.toml');
  writeFileSync(config, 'listen = ["127.0.0.1:1234"]\n');
  writeFileSync(at('var/lib/waterclock/log.db'), 'events');
  dpkg('--install', second);
  assert.match(readFileSync(at('var/lib/dpkg/status'), 'utf8'), /^Version: 1\.0\.1$/m);
  assert.equal(readFileSync(config, 'utf8'), 'listen = ["127.0.0.1:1234"]\n', 'an upgrade keeps the configuration');
  assert.equal(readFileSync(at('etc/passwd'), 'utf8').match(/^waterclock:/gm).length, 1);

  dpkg('--remove', 'waterclock');
  assert.ok(!existsSync(at('usr/bin/waterclock')));
  for (const path of ['etc/waterclock/config.toml', 'var/lib/waterclock/log.db'])
    assert.ok(existsSync(at(path)), `a removal keeps ${path}`);
  dpkg('--install', second);
  dpkg('--purge', 'waterclock');
  for (const path of ['etc/waterclock', 'var/lib/waterclock']) assert.ok(!existsSync(at(path)), `a purge removes ${path}`);
});

/**
 * Runs a script as root in a copy of this system, which is gone afterwards. Returns nothing if it
 * cannot be made.
 */
function inCopyOfSystem(script) {
  const copy = mkdtempSync(join(folder, 'copy-'));
  const mounts = `mount -t tmpfs tmpfs "$0" && cd "$0" && mkdir upper work root &&
    mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root &&
    mount -t tmpfs tmpfs root/run && mkdir -p root/run/systemd/system "root$1" &&
    mount --bind /dev root/dev && mount --bind "$1" "root$1"`;
  const start = (then) => spawnSync('unshare', ['--mount', 'sh', '-ec', `${mounts} && ${then}`, copy, folder], { encoding: 'utf8' });
  if (start('true').status !== 0) return undefined;
  writeFileSync(join(folder, 'script'), script);
  const { status, stdout, stderr } = start('chroot root sh -e "$1/script"');
  assert.equal(status, 0, stdout + stderr);
  return stdout;
}

test('the package starts, restarts and stops its service', { skip: !has('dpkg-deb') && 'dpkg is not here' }, (t) => {
  const [first, second] = ['1.0.0', '1.0.1'].map((version) => buildPackage(version, 'service'));
  // In place of systemd's own, which needs a system that systemd has started. And dpkg knows of no
  // other packages, so that it does not read their lists.
  const systemctl = join(folder, 'systemctl');
  writeFileSync(systemctl, '#!/bin/sh\necho "$*" >>/calls\n', { mode: 0o755 });
  const steps = [`--install ${first}`, `--install ${second}`, '--remove waterclock', `--install ${second}`, '--purge waterclock'];
  const output = inCopyOfSystem(`
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    rm -f /usr/bin/systemctl
    cp ${systemctl} /usr/bin/systemctl
    mkdir -p /dpkg/info /dpkg/updates /dpkg/triggers
    touch /dpkg/status
    ${steps.map((step) => `echo step >>/calls; dpkg --admindir=/dpkg --force-depends ${step} >/log 2>&1 || { cat /log; exit 1; }`).join('\n')}
    cat /calls`);
  if (output === undefined) return t.diagnostic('no copy of the system can be mounted here: not tested');
  const calls = output.split('step\n').slice(1).map((part) => part.trimEnd().split('\n'));
  const begin = ['enable waterclock.service', 'daemon-reload', 'start waterclock.service'];
  const end = ['stop waterclock.socket waterclock.service', 'disable waterclock.socket waterclock.service', 'daemon-reload'];
  // An upgrade and a purge also run the postrm that the last version has left.
  const again = ['daemon-reload'];
  assert.deepEqual(calls, [
    begin,
    [...again, 'daemon-reload', 'try-restart waterclock.service'],
    end,
    begin,
    [...end, ...again],
  ]);
});

test('each key of the configuration is an option', async () => {
  const file = join(packaging, 'deb/config.toml');
  const keys = configKeys(readFileSync(file, 'utf8'));
  assert.ok(keys.length > 5);
  for (const key of keys) assert.match(help, new RegExp(`^ +--${key} `, 'm'), key);
  if (!/^ +--config /m.test(help)) return;
  const options = ['--config', file, '--listen=127.0.0.1:0', `--data-dir=${join(folder, 'configured')}`];
  await served(spawn(program, options, { stdio: ['ignore', 'pipe', 'pipe'] }), async (url) => {
    assert.equal((await fetch(`${url}/health/ready`)).status, 200);
  });
});

test('the unit is hardened, and its times fit those of the server', { skip: !has('systemd-analyze') && 'systemd is not here' }, () => {
  const unit = join(packaging, 'deb/waterclock.service');
  run('systemd-analyze', ['security', '--offline=true', '--no-pager', '--threshold=20', unit]);
  const text = readFileSync(unit, 'utf8');
  const seconds = (name) => Number(new RegExp(`^${name}=(\\d+)s$`, 'm').exec(text)[1]);
  assert.ok(seconds('TimeoutStopSec') > DRAIN + 1);
  // MAX_APPEND in server/src/main.rs, and two pings.
  assert.ok(seconds('WatchdogSec') > 60);
  assert.match(help, /--drain[^[]*\[env: [^\]]*\][^[]*\[default: 10s\]/);
});

/** Runs a test against a server that has been started. Ends it, and requires the exit code 0. */
async function served(child, use) {
  const deadline = setTimeout(() => child.kill('SIGKILL'), DEADLINE);
  let errors = '';
  child.stderr.on('data', (data) => (errors += data));
  const ended = new Promise((resolve) => child.on('close', (code) => resolve(code)));
  try {
    let url;
    for await (const line of createInterface({ input: child.stdout })) {
      [, url] = /^listening on (http:\S+)$/.exec(line) ?? [];
      if (url) break;
    }
    // Its output has ended, and so has the program.
    if (!url) await ended;
    assert.ok(url, `the server has not started: ${errors}`);
    await use(url.replace('0.0.0.0', '127.0.0.1'));
    child.kill('SIGTERM');
    assert.equal(await ended, 0, errors);
  } finally {
    clearTimeout(deadline);
    child.kill('SIGKILL');
  }
}

/** Unpacks an image as a container runtime does. Returns its configuration. */
function unpack(archive, root) {
  const layout = `${root}-layout`;
  for (const path of [layout, root]) mkdirSync(path);
  run('tar', ['-xf', archive, '-C', layout]);
  const json = (bytes) => JSON.parse(bytes.toString());
  const blob = ({ digest, size }) => {
    const bytes = readFileSync(join(layout, 'blobs', digest.replace(':', '/')));
    assert.equal(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, digest);
    assert.equal(bytes.length, size);
    return bytes;
  };
  assert.equal(json(readFileSync(join(layout, 'oci-layout'))).imageLayoutVersion, '1.0.0');
  const [entry] = json(readFileSync(join(layout, 'index.json'))).manifests;
  const manifest = json(blob(entry));
  const image = json(blob(manifest.config));
  // For each Docker, the same once more in Docker's own format.
  const path = ({ digest }) => `blobs/${digest.replace(':', '/')}`;
  const [docker] = json(readFileSync(join(layout, 'manifest.json')));
  assert.deepEqual([docker.Config, docker.Layers], [path(manifest.config), manifest.layers.map(path)]);
  assert.match(docker.RepoTags[0], /^waterclock:\d+\.\d+\.\d+$/);
  assert.deepEqual(image.rootfs.diff_ids, manifest.layers.map(({ digest }) => digest));
  for (const layer of manifest.layers) run('tar', ['-xpf', '-', '-C', root], { input: blob(layer), stdio: 'pipe' });
  return image;
}

test('the image runs as its user, with a root that is read-only', async (t) => {
  const archive = join(folder, 'image.tar');
  const { isStatic } = inspect(readFileSync(program));
  if (!isStatic) {
    assert.throws(() => build(program), /shared libraries/);
    t.diagnostic('the program is not static: its libraries were added');
  }
  const bytes = build(program, { withLibraries: true });
  assert.ok(bytes.equals(build(program, { withLibraries: true })), 'the same bytes');
  writeFileSync(archive, bytes);
  const root = join(folder, 'unpacked');
  const { config, architecture } = unpack(archive, root);
  assert.match(architecture, /^(amd64|arm64)$/);
  const dockerfile = readDockerfile(readFileSync(join(packaging, 'image/Dockerfile'), 'utf8')).config;
  const { Labels, ...rest } = config;
  assert.deepEqual(rest, dockerfile, 'the image and the Dockerfile have the same settings');
  assert.match(Labels['org.opencontainers.image.version'], /^\d+\.\d+\.\d+/);
  assert.equal(config.User, '10001:10001');
  assert.deepEqual(Object.keys(config.Volumes), ['/data']);

  // The address is free, and the variable of the image says 0.0.0.0:3000.
  const variables = [...config.Env.filter((entry) => !entry.startsWith('WATERCLOCK_LISTEN=')), 'WATERCLOCK_LISTEN=127.0.0.1:0'];
  const [entrypoint, ...args] = config.Entrypoint;
  const inside = (command) => `exec env -i PATH="$PATH" ${variables.join(' ')} chroot --userspec=${config.User} "$0" ${command}`;
  const mounts = 'mount --bind "$0" "$0" && mount --bind "$0/data" "$0/data" && mount -o remount,ro,bind "$0" && ';
  const start = (flags, script) => ['unshare', [...flags, 'sh', '-c', script, root]];
  let way = start(['--mount'], mounts + inside([entrypoint, ...args].join(' ')));
  if (spawnSync(...start(['--mount'], `${mounts} ! touch "$0/file" 2>/dev/null`)).status !== 0) {
    t.diagnostic('nothing can be mounted here: the root was not read-only');
    way = ['sh', ['-c', inside([entrypoint, ...args].join(' ')), root]];
    if (!isRoot) {
      t.diagnostic('no chroot here: the program of the image was not run');
      return;
    }
  }
  await served(spawn(...way, { stdio: ['ignore', 'pipe', 'pipe'] }), async (url) => {
    const published = await fetch(`${url}/events/t`, { method: 'POST', body: 'from the image' });
    assert.equal(published.status, 201);
    const events = await (await fetch(`${url}/events/t?last_event_id=earliest&limit=1`)).text();
    assert.match(events, /^data: from the image$/m);
    const database = statSync(join(root, 'data/log.db'));
    assert.deepEqual([database.uid, database.gid], [10001, 10001]);
    if (!/^ +health /m.test(help)) return t.diagnostic('the program has no command health: not run');
    const [, command, ...words] = config.Healthcheck.Test;
    const check = (to) => spawnSync('chroot', [`--userspec=${config.User}`, root, command, ...words, to]);
    assert.equal(check(url).status, 0);
    assert.notEqual(check('http://127.0.0.1:1/').status, 0);
  });
});

test('the manifests fit the image and the server', async () => {
  const YAML = createRequire(join(top, 'end2end/package.json'))('yaml');
  const text = readFileSync(join(packaging, 'kubernetes/waterclock.yaml'), 'utf8');
  const documents = YAML.parseAllDocuments(text).map((document) => {
    assert.deepEqual(document.errors, []);
    return document.toJS();
  });
  assert.deepEqual(documents.map(({ kind }) => kind), ['StatefulSet', 'Service']);
  const [{ spec }, service] = documents;
  const pod = spec.template.spec;
  const [container] = pod.containers;
  const { config } = readDockerfile(readFileSync(join(packaging, 'image/Dockerfile'), 'utf8'));
  assert.equal(spec.replicas, 1, 'one server writes to an event log');
  const drain = Number(/^--drain=(\d+)s$/.exec(container.args.find((arg) => arg.startsWith('--drain')))[1]);
  assert.ok(pod.terminationGracePeriodSeconds > drain + 5);
  const { runAsNonRoot, runAsUser, runAsGroup, seccompProfile } = pod.securityContext;
  assert.equal(`${runAsUser}:${runAsGroup}`, config.User);
  assert.ok(runAsNonRoot && seccompProfile.type === 'RuntimeDefault');
  assert.deepEqual(container.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  });
  const [port] = container.ports;
  assert.ok(`${port.containerPort}/tcp` in config.ExposedPorts);
  assert.equal(service.spec.ports[0].targetPort, port.name);
  assert.deepEqual(service.spec.selector, spec.selector.matchLabels);
  assert.deepEqual(spec.template.metadata.labels, spec.selector.matchLabels);
  assert.equal(spec.volumeClaimTemplates[0].metadata.name, container.volumeMounts[0].name);
  assert.ok(container.volumeMounts[0].mountPath in config.Volumes);
  const options = [...container.args, '--listen=127.0.0.1:0', `--data-dir=${join(folder, 'pod')}`];
  await served(spawn(program, options, { stdio: ['ignore', 'pipe', 'pipe'] }), async (url) => {
    for (const name of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
      const { path, port: ofProbe } = container[name].httpGet;
      assert.equal(ofProbe, port.name);
      // As from elsewhere: the address of the pod is no name of this machine.
      const response = await fetch(url + path, { headers: { 'X-Forwarded-For': '192.0.2.1' } });
      assert.equal(response.status, 200, path);
    }
  });
});
