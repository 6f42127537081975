from protojax.scale import fitting, programs


def test_the_memory_that_is_free_is_known(monkeypatch, tmp_path):
    mesh = programs.mesh(None)
    assert 2**20 < fitting.room(mesh) < 2**50
    monkeypatch.setattr(fitting, "_MEMORY_FILE", tmp_path / "none")
    monkeypatch.setattr(fitting, "_CONTAINERS", tmp_path)
    assert fitting.room(mesh) == float("inf")


def test_the_limit_of_a_container_is_heard_of(monkeypatch, tmp_path):
    monkeypatch.setattr(fitting, "_MEMORY_FILE", tmp_path / "none")
    monkeypatch.setattr(fitting, "_CONTAINERS", tmp_path)
    facts = {"max": "8000", "current": "5000", "stat": "file 40\ninactive_file 1000"}
    for name, text in facts.items():
        (tmp_path / f"memory.{name}").write_text(text)
    mesh = programs.mesh(None)
    assert fitting.room(mesh) == 0.8 * 4000 / mesh.size
    (tmp_path / "memory.max").write_text("max")
    assert fitting.room(mesh) == float("inf")
