"""The tables of ``experiments/`` as pages of the site, so that links to them work there too."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Adds every table and picture under the path that it has in the repository."""
    for pattern in ("*/*.md", "*/*.png"):
        for path in sorted((ROOT / "experiments").glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """The site's root is docs/: what is beside it in the repository is below it here."""
    return markdown.replace("](../experiments/", "](experiments/")
