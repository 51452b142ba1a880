package vmlab

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/test/lab"
)

//go:embed guest
var guest embed.FS

// recipe changes when what this file does to an image changes in a way that its inputs do not show.
const recipe = "1"

// imageSize is what a guest sees of its disk; the file is sparse.
const imageSize = 4 << 30

// buildBound is for a bootstrap of some hundred packages on a busy machine.
const buildBound = 8 * time.Minute

// image is what a guest starts from, in the cache.
type image struct {
	Kernel, Initrd, Disk, Key string // paths
}

// cacheDir keeps images between runs.
func cacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find cache folder: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	dir := filepath.Join(base, "keepone", "vmlab")
	return dir, os.MkdirAll(dir, 0o700)
}

// builder makes an image from Debian's packages and the project's own.
type builder struct {
	cache string
	deb   string
	out   io.Writer
	apt   []string // the machine's own sources
	suite string
}

// newBuilder finds what the image depends on.
func newBuilder(deb string, out io.Writer) (*builder, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	b := &builder{cache: cache, deb: deb, out: out}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			b.suite = strings.Trim(name, `"`)
		}
	}
	for _, path := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"} {
		if text, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(text))) > 0 {
			b.apt = append(b.apt, path)
		}
	}
	if b.suite == "" || len(b.apt) == 0 {
		return nil, fmt.Errorf("%w: no Debian release or no apt sources found in /etc", lab.ErrUnfit)
	}
	return b, nil
}

// digest is of all that goes into a layer.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d\n%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func guestFile(name string) string {
	text, err := guest.ReadFile("guest/" + name)
	if err != nil {
		panic("read " + name + ": " + err.Error()) // it is linked in
	}
	return string(text)
}

// image returns the image, from the cache if its inputs are the same.
func (b *builder) image(ctx context.Context) (image, error) {
	lock, err := os.OpenFile(filepath.Join(b.cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return image{}, fmt.Errorf("lock cache: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return image{}, fmt.Errorf("lock cache: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, buildBound)
	defer cancel()
	depends, err := b.depends(ctx)
	if err != nil {
		return image{}, err
	}
	packed, err := os.ReadFile(b.deb)
	if err != nil {
		return image{}, fmt.Errorf("read package: %w", err)
	}
	inputs := []string{recipe, b.suite, guestFile("packages.txt"), strings.Join(depends, ",")}
	for _, path := range b.apt {
		text, err := os.ReadFile(path)
		if err != nil {
			return image{}, fmt.Errorf("read apt sources: %w", err)
		}
		inputs = append(inputs, string(text))
	}
	base := filepath.Join(b.cache, "base-"+digest(inputs...))
	layer := filepath.Join(b.cache, "image-"+digest(base, string(packed), guestFile("init"), guestFile("masked.txt"), guestFile("ready.service")))
	im := image{filepath.Join(layer, "vmlinuz"), filepath.Join(layer, "initrd"), filepath.Join(layer, "disk"), filepath.Join(layer, "id")}
	if _, err := os.Stat(filepath.Join(layer, "done")); err == nil {
		return im, nil
	}
	if err := b.makeBase(ctx, base, depends); err != nil {
		return image{}, err
	}
	if err := b.makeImage(ctx, base, layer, im); err != nil {
		return image{}, err
	}
	return im, b.forget(base, layer)
}

// forget removes what older inputs made: a base is a gigabyte.
func (b *builder) forget(keep ...string) error {
	old, _ := filepath.Glob(filepath.Join(b.cache, "*-*"))
	var errs []error
	for _, dir := range old {
		if dir != keep[0] && dir != keep[1] {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// depends are the names of what the package needs, of alternatives the first.
func (b *builder) depends(ctx context.Context) ([]string, error) {
	out, err := b.run(ctx, "dpkg-deb", "-f", b.deb, "Depends")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, one := range strings.Split(strings.TrimSpace(out), ",") {
		if fields := strings.Fields(one); len(fields) > 0 {
			names = append(names, fields[0])
		}
	}
	return names, nil
}

// run executes a program of the machine.
func (b *builder) run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // mmdebstrap cleans up behind itself then
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", argv[0], err, out[max(0, len(out)-600):])
	}
	return string(out), nil
}

// withoutDrivers are parts of the kernel that no guest here has a device for.
var withoutDrivers = []string{
	"drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet", "drivers/infiniband", "drivers/iio", "drivers/staging",
	"drivers/scsi", "drivers/isdn", "drivers/usb", "drivers/hid", "drivers/input", "drivers/hwmon", "sound",
}

// makeBase bootstraps Debian.
func (b *builder) makeBase(ctx context.Context, base string, depends []string) error {
	if _, err := os.Stat(filepath.Join(base, "done")); err == nil {
		return nil
	}
	fmt.Fprintln(b.out, "building the guests' base image from Debian's packages; it is kept for later runs")
	if err := errors.Join(os.RemoveAll(base), os.MkdirAll(base, 0o700)); err != nil {
		return fmt.Errorf("make base image: %w", err)
	}
	include := append(strings.Fields(guestFile("packages.txt")), depends...)
	argv := []string{
		"mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=" + strings.Join(include, ","),
		`--aptopt=Apt::Install-Recommends "false"`, "--dpkgopt=force-unsafe-io",
	}
	for _, path := range []string{"/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"} {
		argv = append(argv, "--dpkgopt=path-exclude="+path)
	}
	for _, dir := range withoutDrivers {
		argv = append(argv, "--dpkgopt=path-exclude=/lib/modules/*/kernel/"+dir+"/*")
	}
	argv = append(argv, b.suite, filepath.Join(base, "root"))
	if _, err := b.run(ctx, append(argv, b.apt...)...); err != nil {
		return fmt.Errorf("make base image: %w", errors.Join(err, os.RemoveAll(base)))
	}
	return os.WriteFile(filepath.Join(base, "done"), nil, 0o600)
}

// makeImage installs the package over the base, as dpkg does, and makes disk and initrd of it.
func (b *builder) makeImage(ctx context.Context, base, layer string, im image) (err error) {
	fmt.Fprintf(b.out, "installing %s in the guests' image\n", filepath.Base(b.deb))
	merged, upper, work := filepath.Join(layer, "merged"), filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	if err := os.RemoveAll(layer); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	for _, dir := range []string{merged, upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make image: %w", err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", filepath.Join(base, "root"), upper, work)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("make image: mount overlay: %w", err)
	}
	defer func() {
		err = errors.Join(err, unix.Unmount(merged, unix.MNT_DETACH), os.RemoveAll(merged), os.RemoveAll(upper), os.RemoveAll(work))
		if err == nil {
			err = os.WriteFile(filepath.Join(layer, "done"), nil, 0o600)
		}
	}()
	if _, err := b.run(ctx, "install", "-m", "644", b.deb, merged+"/root/keepone.deb"); err != nil {
		return err
	}
	if _, err := b.run(ctx, "chroot", merged, "dpkg", "-i", "/root/keepone.deb"); err != nil {
		return err
	}
	if _, err := b.run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", im.Key); err != nil {
		return err
	}
	if err := furnish(merged, im.Key+".pub"); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	if err := b.boot(ctx, merged, im); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	disk, err := os.Create(im.Disk)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(disk.Truncate(imageSize), disk.Close()); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	_, err = b.run(ctx, "mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", "-E", "lazy_itable_init=1", "-d", merged, im.Disk)
	return err
}

// furnish writes what makes a node of the lab out of Debian: access for the lab, and nothing that slows the boot.
func furnish(root, publicKey string) error {
	key, err := os.ReadFile(publicKey)
	if err != nil {
		return err
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	for i := 1; i <= lab.MaxNodes; i++ {
		fmt.Fprintf(&hosts, "%s n%d\n", lab.LinkAddress(i, 0), i)
	}
	files := map[string]string{
		"root/.ssh/authorized_keys":            string(key),
		"etc/ssh/sshd_config.d/lab.conf":       "UseDNS no\nUsePAM no\nPermitRootLogin prohibit-password\nHostKey /etc/ssh/ssh_host_ed25519_key\nMaxSessions 100\n",
		"etc/fstab":                            "/dev/vda / ext4 rw,noatime 0 0\n",
		"etc/hosts":                            hosts.String(),
		"etc/machine-id":                       "",
		"etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nRateLimitBurst=0\nAudit=no\nSyncIntervalSec=1s\n",
		"etc/systemd/system/lab-ready.service": guestFile("ready.service"),
		"etc/sysctl.d/lab.conf":                "kernel.sysrq = 1\n",
		"etc/lvm/lvmlocal.conf":                "",
	}
	for path, text := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			return err
		}
	}
	units := filepath.Join(root, "etc/systemd/system")
	for _, path := range []string{"etc/hosts", "etc/fstab", "etc/machine-id"} {
		if err := os.Chmod(filepath.Join(root, path), 0o644); err != nil {
			return err
		}
	}
	links := map[string]string{
		"multi-user.target.wants/lab-ready.service": "../lab-ready.service",
		"default.target": "/lib/systemd/system/multi-user.target",
	}
	for _, unit := range strings.Fields(guestFile("masked.txt")) {
		links[unit] = "/dev/null"
	}
	for name, target := range links {
		link := filepath.Join(units, name)
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	return nil
}
