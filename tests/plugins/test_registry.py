import pytest

from vertebra import plugins
from vertebra.errors import PluginError, RecipeError
from vertebra.registry import BACKBONES, HEADS, LOSSES, NECKS, REGISTRIES, Registry

pytestmark = pytest.mark.usefixtures("clean_slate")
HEAD = """
    class {name}:
        component_kind = "head"
        def __init__(self, size: int = 1):
            self.size = size
"""


def test_a_decorated_class_keeps_its_identity_and_is_found_by_name():
    @HEADS.register()
    class Alpha:
        component_kind = "head"

    assert HEADS.get("Alpha") is Alpha
    assert "Alpha" in HEADS and "Alpha" in HEADS.names()


def test_register_works_as_a_call_and_under_another_name():
    class Beta: ...

    assert HEADS.register(Beta) is Beta
    assert HEADS.register(Beta, name="beta") is Beta
    assert HEADS.get("beta") is HEADS.get("Beta") is Beta


def test_registries_are_fvcores():
    from fvcore.common.registry import Registry as FvcoreRegistry

    assert all(isinstance(registry, FvcoreRegistry) for registry in REGISTRIES.values())
    assert list(REGISTRIES) == list(plugins.KINDS)


def test_one_name_registered_for_two_classes_names_both_origins():
    def one():
        class Gamma: ...

        return Gamma

    def two():
        class Gamma: ...

        return Gamma

    HEADS.register(one())
    with pytest.raises(PluginError, match=r"head Gamma is registered twice: .*one.*Gamma in .*, and now .*two.*Gamma"):
        HEADS.register(two())


def test_a_notebook_cell_that_runs_again_replaces_its_class():
    def cell():
        class Delta: ...

        return Delta

    HEADS.register(cell())
    newer = HEADS.register(cell())
    assert HEADS.get("Delta") is newer


def cell(source: str, number: int) -> type:
    """The class Kappa that a notebook's cell defines and registers."""
    space = {"__name__": "__main__", "HEADS": HEADS}
    exec(compile(source, f"/tmp/ipykernel_1/{number}.py", "exec"), space)
    return space["Kappa"]


def test_a_class_of_a_second_cell_replaces_the_first_with_a_note(caplog):
    body = "@HEADS.register()\nclass Kappa:\n    def forward(self, x): return {}"
    first = cell(body.format(1), 1)
    assert cell(body.format(1), 1) is HEADS.get("Kappa") is not first and not caplog.messages
    second = cell(body.format(2), 2)
    assert HEADS.get("Kappa") is second
    (note,) = caplog.messages
    assert note == (
        "head Kappa: Kappa in /tmp/ipykernel_1/2.py replaces Kappa in /tmp/ipykernel_1/1.py in this process"
    )


@pytest.mark.parametrize(
    "body",
    [
        "@dataclasses.dataclass\n@HEADS.register()\nclass Kappa:\n    size: int = {}",
        "@HEADS.register()\nclass Kappa:\n    size = {}",
    ],
)
def test_a_cell_is_known_whatever_is_in_its_class(caplog, body):
    for number in (1, 1, 2):
        cell(f"import dataclasses\n{body.format(number)}", number)
    assert len(caplog.messages) == 1 and "/ipykernel_1/2.py replaces Kappa in" in caplog.messages[0]


def test_a_qualified_name_cannot_be_registered():
    class Lambda: ...

    with pytest.raises(PluginError, match="distribution:Name is an installed component's"):
        HEADS.register(Lambda, name="vertebra-retinanet:RetinaNetHead")


def test_names_of_the_core_cannot_be_registered():
    class ResNet:
        component_kind = "backbone"

    with pytest.raises(PluginError, match="the core has a backbone of this name"):
        BACKBONES.register(ResNet)


def test_a_class_of_another_kind_cannot_be_registered():
    class Epsilon:
        component_kind = "head"

    with pytest.raises(PluginError, match="Epsilon is a head, but it is registered as a neck"):
        NECKS.register(Epsilon)


def test_an_installed_component_is_imported_when_it_is_named_and_not_before(install):
    import sys

    install("zeta-plugin", {"vertebra.heads": {"Zeta": "fake_zeta:Zeta"}}, {"fake_zeta.py": HEAD.format(name="Zeta")})
    assert "Zeta" in HEADS.names()
    assert "fake_zeta" not in sys.modules
    assert HEADS.get("Zeta")(3).size == 3
    assert HEADS.get("zeta_plugin:Zeta") is HEADS.get("Zeta")


def test_names_of_installed_plugins_cannot_be_registered(install, monkeypatch):
    install("eta-plugin", {"vertebra.heads": {"Eta": "fake_eta:Eta"}}, {"fake_eta.py": HEAD.format(name="Eta")})

    class Eta: ...

    with pytest.raises(
        PluginError, match=r"Eta cannot be registered .*: the installed plugin eta-plugin 1.0 has"
    ) as got:
        HEADS.register(Eta)
    assert "register(name=...),\n  or ignore the plugin: --no-plugin eta-plugin (or VERTEBRA_PLUGINS_DISABLE)" in str(
        got.value
    )
    assert HEADS.get("Eta").__module__ == "fake_eta"
    assert HEADS.get(HEADS.register(Eta, name="MyEta").__name__) is not Eta
    monkeypatch.setenv("VERTEBRA_PLUGINS_DISABLE", "eta-plugin")
    assert HEADS.register(Eta) is HEADS.get("Eta") is Eta


def test_a_plugin_may_register_from_a_package_beside_its_own(install):
    source = "from vertebra.registry import HEADS\n@HEADS.register()\nclass Mu: component_kind = 'head'\n"
    files = {"fake_mu.py": "from fake_mu_parts import Mu\n", "fake_mu_parts.py": source}
    install("mu-plugin", {"vertebra.heads": {"Mu": "fake_mu:Mu"}}, files)
    assert HEADS.get("Mu").__module__ == "fake_mu_parts"


def test_a_plugin_that_cannot_be_used_protects_no_name(install):
    install("nu-plugin", {"vertebra.heads": {"Nu": "fake_nu:Nu"}}, requires=("vertebra>=9",))

    @HEADS.register()
    class Nu: ...

    assert HEADS.get("Nu") is Nu


def test_an_installed_plugin_may_register_what_it_offers(install):
    source = "from vertebra.registry import HEADS\n@HEADS.register()\nclass Iota: component_kind = 'head'\n"
    install("iota-plugin", {"vertebra.heads": {"Iota": "fake_iota:Iota"}}, {"fake_iota.py": source})
    assert HEADS.get("Iota").__module__ == "fake_iota"


def test_a_name_that_two_distributions_offer_is_an_error_that_shows_both_qualified_forms(install):
    for name in ("first-theta", "second-theta"):
        module = f"fake_{name.replace('-', '_')}"
        install(name, {"vertebra.heads": {"Theta": f"{module}:Theta"}}, {f"{module}.py": HEAD.format(name="Theta")})
    with pytest.raises(PluginError) as caught:
        HEADS.get("Theta")
    assert "first-theta:Theta  (first-theta 1.0" in str(caught.value)
    assert "second-theta:Theta" in str(caught.value)
    assert HEADS.get("second-theta:Theta").__module__ == "fake_second_theta"
    assert {"first-theta:Theta", "second-theta:Theta"} <= set(HEADS.names())
    assert "Theta" not in HEADS.names()


def test_a_plugin_cannot_take_a_name_of_the_core(install):
    install(
        "usurper",
        {"vertebra.backbones": {"ResNet": "fake_usurper:ResNet"}},
        {"fake_usurper.py": "class ResNet: component_kind = 'backbone'"},
    )
    assert BACKBONES.find("ResNet").distribution == "vertebra"
    assert BACKBONES.get("usurper:ResNet").__module__ == "fake_usurper"
    [usurper] = [plugin for plugin in plugins.installed_plugins() if plugin.distribution == "usurper"]
    assert usurper.notes == ["backbone ResNet: the core has this name; reach the plugin's as usurper:ResNet"]


def test_an_unknown_name_suggests_near_ones(install):
    install("iota-plugin", {"vertebra.heads": {"IotaHead": "fake_iota:IotaHead"}})
    with pytest.raises(RecipeError) as caught:
        HEADS.get("iotahaed")
    assert str(caught.value).splitlines() == [
        "no head has the name 'iotahaed'.",
        "  Nearest: IotaHead. To see all: vertebra components head",
    ]


def test_a_name_of_another_kind_says_which(install):
    install("kappa-plugin", {"vertebra.heads": {"Kappa": "fake_kappa:Kappa"}})
    with pytest.raises(RecipeError, match="Kappa is a head; you asked for a neck"):
        NECKS.get("Kappa")


def test_an_entry_point_in_the_wrong_group_says_what_the_class_is(install):
    install(
        "lambda-plugin",
        {"vertebra.necks": {"Lam": "fake_lam:Lam"}},
        {"fake_lam.py": "class Lam: component_kind = 'head'"},
    )
    with pytest.raises(
        PluginError, match=r"Lam \(plugin lambda-plugin 1.0\) is a head, but it is registered as a neck"
    ):
        NECKS.get("Lam")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody:Mu", "no installed distribution 'nobody' offers a head"),
        ("mu-plugin:Nu", "mu-plugin 1.0 offers no head 'Nu'.\n  It offers: Mu"),
    ],
)
def test_a_qualified_name_that_means_nothing_says_which_half_is_wrong(install, name, words):
    install("mu-plugin", {"vertebra.heads": {"Mu": "fake_mu:Mu"}})
    with pytest.raises(RecipeError) as caught:
        HEADS.get(name)
    assert words in str(caught.value)


def test_a_qualified_name_of_another_kind_says_which(install):
    install("nu-plugin", {"vertebra.heads": {"Nu": "fake_nu:Nu"}, "vertebra.necks": {"Other": "fake_nu:Other"}})
    for registry, kind in ((NECKS, "neck"), (LOSSES, "loss")):
        with pytest.raises(RecipeError, match=f"nu-plugin:Nu is a head; you asked for a {kind}"):
            registry.get("nu-plugin:Nu")


def test_every_core_loss_group_is_the_plural():
    assert plugins.GROUPS["loss"] == "vertebra.losses"
    assert {"SigmoidFocalLoss", "GIoULoss"} <= set(LOSSES.names())


def test_a_registry_says_its_kind():
    assert Registry("neck").kind == "neck"
