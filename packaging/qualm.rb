# Homebrew formula. packaging/formula.sh fills in the version and the sums.
class Qualm < Formula
  desc "Regression harness for quantized neural-network weights"
  homepage "https://github.com/qualm-dev/qualm"
  version "@VERSION@"
  license any_of: ["MIT", "Apache-2.0"]

  on_macos do
    on_arm do
      url "https://github.com/qualm-dev/qualm/releases/download/v@VERSION@/qualm-aarch64-apple-darwin.tgz"
      sha256 "@aarch64-apple-darwin@"
    end
    on_intel do
      url "https://github.com/qualm-dev/qualm/releases/download/v@VERSION@/qualm-x86_64-apple-darwin.tgz"
      sha256 "@x86_64-apple-darwin@"
    end
  end

  on_linux do
    on_arm do
      url "https://github.com/qualm-dev/qualm/releases/download/v@VERSION@/qualm-aarch64-unknown-linux-gnu.tgz"
      sha256 "@aarch64-unknown-linux-gnu@"
    end
    on_intel do
      url "https://github.com/qualm-dev/qualm/releases/download/v@VERSION@/qualm-x86_64-unknown-linux-gnu.tgz"
      sha256 "@x86_64-unknown-linux-gnu@"
    end
  end

  def install
    bin.install "qualm"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/qualm.bash" => "qualm"
    zsh_completion.install "completions/_qualm"
    fish_completion.install "completions/qualm.fish"
  end

  test do
    assert_equal "qualm #{version}", shell_output("#{bin}/qualm --version").strip
    assert_match "cannot open", shell_output("#{bin}/qualm inspect missing.gguf 2>&1", 6)
  end
end
