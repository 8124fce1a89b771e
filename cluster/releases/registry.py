"""The model registry: MLflow's registered models, whose versions point at release bundles.

A version has no alias until its gates pass. `train` registers, `serve` and `jobs` look up.
"""

import re
from collections.abc import Collection
from typing import Final, Literal

from cluster.expected import ExpectedError
from cluster.releases.bundles import BUCKET
from cluster.settings import Settings

VIT: Final = "xray-vit"
LLM: Final = "xray-llm"
ClassifierName = Literal["xray-vit"]
ModelName = Literal["xray-vit", "xray-llm"]
"""The same as types, for the bodies of requests."""
BUNDLE_TAG = "bundle"
"""Tag of a version with its release bundle's key; the key of a variant of it is under `bundle_VARIANT`."""
NUMBER = r"[1-9][0-9]{0,17}"
"""What a version is called, as a regular expression."""


class RegistryError(ExpectedError):
    """No such model version, or MLflow does not answer."""


class Registry:
    """Names are `xray-vit` and `xray-llm`; versions are MLflow's, as strings that count from "1"."""

    def __init__(self, settings: Settings) -> None:
        from mlflow import MlflowClient  # two seconds of imports, spared where the registry is not used

        self.settings = settings
        self.client: MlflowClient = MlflowClient(settings.mlflow_tracking_uri)

    def register(self, model: str, bundle_key: str, run_id: str | None, tags: dict[str, str]) -> str:
        """Register a bundle as a new version without alias; the same bundle again gives the version it has.

        Returns:
            the version number.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in self.client.search_model_versions(f"name = '{model}'"):
            if version.tags.get(BUNDLE_TAG) == bundle_key:
                return str(version.version)
        source = f"s3://{self.settings.bucket(BUCKET)}/{bundle_key}"  # the proxy's scheme is for run artifacts only
        created = self.client.create_model_version(
            model,
            source,
            run_id=run_id,
            tags={**tags, BUNDLE_TAG: bundle_key},
            await_creation_for=0,
        )
        return str(created.version)

    def bundle_key(self, model: str, version: str) -> str:
        """Return the key of the version's bundle, in the bucket `mlflow-artifacts`.

        Raises:
            RegistryError: there is no such version.
        """
        return self.tags(model, version)[BUNDLE_TAG]

    def bundle_keys(self, model: str, version: str) -> list[str]:
        """Return the keys of the version's bundle and of each variant that was exported from it.

        Raises:
            RegistryError: there is no such version.
        """
        tags = self.tags(model, version)
        return [
            tags[name] for name in sorted(tags) if name == BUNDLE_TAG or name.startswith(f"{BUNDLE_TAG}_")
        ]

    def set_variant(self, model: str, version: str, variant: str, bundle_key: str) -> None:
        """Register an exported variant's bundle under the version that it was made from."""
        self.set_tags(model, version, {f"{BUNDLE_TAG}_{variant}": bundle_key})

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            RegistryError: there is no such version, as there is no "01", which MLflow would take for 1.
        """
        from mlflow.exceptions import MlflowException

        if re.fullmatch(NUMBER, version) is None:
            raise RegistryError(f"{version!r} is no number of a version of {model}: give one such as 7")
        try:
            return dict(self.client.get_model_version(model, version).tags)
        except MlflowException as error:
            raise RegistryError(f"the registry has no {model} version {version}") from error

    def set_tags(self, model: str, version: str, tags: dict[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(model, version, name, value)

    def run_id(self, model: str, version: str) -> str | None:
        """Return the MLflow run that made the version, None when none did."""
        return self.client.get_model_version(model, version).run_id or None

    def version_by_alias(self, model: str, alias: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_model_version_by_alias(model, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(model, alias, version)

    def remove_alias(self, model: str, alias: str) -> None:
        self.client.delete_registered_model_alias(model, alias)

    def trained_on(self, model: str, dataset_versions: Collection[str]) -> list[str]:
        """List the versions whose tag names one of these dataset versions, as MODEL/VERSION, oldest first.

        Raises:
            RegistryError: MLflow does not answer.
        """
        from mlflow.exceptions import MlflowException

        if not dataset_versions:
            return []
        numbers: list[int] = []
        token: str | None = None
        try:
            while token is None or token:
                page = self.client.search_model_versions(f"name = '{model}'", page_token=token)
                numbers += [
                    int(version.version)
                    for version in page
                    if version.tags.get("dataset_version") in dataset_versions
                ]
                token = page.token or ""
        except MlflowException as error:
            raise RegistryError(
                f"MLflow does not answer at {self.settings.mlflow_tracking_uri}; `make status` says why"
            ) from error
        return [f"{model}/{number}" for number in sorted(numbers)]

    def newest(self, model: str) -> str | None:
        """Return the highest version number registered, None when there is none."""
        versions = self.client.search_model_versions(f"name = '{model}'")
        return str(max(int(version.version) for version in versions)) if versions else None

    def versions(self, model: str) -> list[str]:
        """List every registered version, oldest first."""
        versions = self.client.search_model_versions(f"name = '{model}'", max_results=10_000)
        return [str(number) for number in sorted(int(version.version) for version in versions)]
