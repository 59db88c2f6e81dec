// The ordinary operations of an operator written in JavaScript; prints what it saw as JSON. Argument: a kubeconfig.
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const rbac = config.makeApiClient(k8s.RbacAuthorizationV1Api);
const extensions = config.makeApiClient(k8s.ApiextensionsV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const authorization = config.makeApiClient(k8s.AuthorizationV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const namespace = 'default';
const seen = {};
const labels = { app: 'js' };
const deployment = {
  apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'js', namespace },
  spec: {
    replicas: 2, selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'toolbox' }] } },
  },
};

async function watched() {
  const events = [];
  const watch = new k8s.Watch(config);
  let done;
  const ended = new Promise((resolve) => { done = resolve; });
  const request = await watch.watch(`/api/v1/namespaces/${namespace}/configmaps`, { fieldSelector: 'metadata.name=w' },
    (type, object) => { events.push([type, object.data?.k ?? null]); if (type === 'DELETED') done(); }, () => done());
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'w' }, data: { k: '1' } } });
  const found = await core.readNamespacedConfigMap({ namespace, name: 'w' });
  await core.replaceNamespacedConfigMap({ namespace, name: 'w', body: { ...found, data: { k: '2' } } });
  await core.deleteNamespacedConfigMap({ namespace, name: 'w' });
  await ended;
  request.abort();
  return events;
}

async function informed() {
  const list = () => core.listNamespacedSecret({ namespace });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/secrets`, list);
  const added = new Promise((resolve) => informer.on('add', (secret) => resolve(secret.metadata.name)));
  await informer.start();
  await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'i' }, stringData: { password: 'x' } } });
  const name = await added;
  await informer.stop();
  return name;
}

seen.version = (await config.makeApiClient(k8s.VersionApi).getCode()).major;
seen.created = (await apps.createNamespacedDeployment({ namespace, body: deployment })).spec.strategy.type;
seen.scaled = (await apps.patchNamespacedDeploymentScale(
  { namespace, name: 'js', body: { spec: { replicas: 3 } } }, k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
)).spec.replicas;
seen.patched = (await apps.patchNamespacedDeployment(
  { namespace, name: 'js', body: [{ op: 'add', path: '/metadata/labels', value: { a: 'b' } }] },
  k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch),
)).metadata.labels;
const applied = await objects.patch(
  { ...deployment, spec: { ...deployment.spec, replicas: 5 } }, undefined, undefined, 'js-test', true, k8s.PatchStrategy.ServerSideApply,
);
seen.applied = [applied.spec.replicas, applied.metadata.managedFields.some((m) => m.manager === 'js-test' && m.operation === 'Apply')];
seen.watched = await watched();
seen.informed = await informed();
await rbac.createNamespacedRole({ namespace, body: { metadata: { name: 'r' }, rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] } });
const review = { spec: { resourceAttributes: { namespace, verb: 'create', resource: 'pods' } } };
seen.allowed = (await authorization.createSelfSubjectAccessReview({ body: review })).status.allowed;
const schema = { type: 'object', properties: { spec: { type: 'object', properties: { size: { type: 'integer' } } } } };
await extensions.createCustomResourceDefinition({ body: {
  metadata: { name: 'things.js.example' },
  spec: {
    group: 'js.example', scope: 'Namespaced', names: { plural: 'things', kind: 'Thing' },
    versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema } }],
  },
} });
const place = { group: 'js.example', version: 'v1', namespace, plural: 'things' };
await custom.createNamespacedCustomObject({ ...place, body: { apiVersion: 'js.example/v1', kind: 'Thing', metadata: { name: 't' }, spec: { size: 3 } } });
seen.custom = (await custom.listNamespacedCustomObject(place)).items.map((o) => o.spec.size);
seen.missing = await core.readNamespacedPod({ namespace, name: 'none' }).then(() => 200, (error) => error.code);
await apps.deleteNamespacedDeployment({ namespace, name: 'js', propagationPolicy: 'Background' });
await extensions.deleteCustomResourceDefinition({ name: 'things.js.example' });
console.log(JSON.stringify(seen));
